"""EpisodeEngine: the only place where a step happens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.mask_inputs import MaskInputs
from medseg_gym.backbones.protocol import Backbone, PromptRow
from medseg_gym.cases import Case
from medseg_gym.episodes import rewards
from medseg_gym.episodes.decode_options import DecodeOptions
from medseg_gym.episodes.decoding import begin_with_text, case_names, decode_masks
from medseg_gym.episodes.episode import Episode, MaskState
from medseg_gym.episodes.masks import PackedMask, sample_squares
from medseg_gym.episodes.summary import EpisodeSummary
from medseg_gym.errors import EpisodeError, PromptError
from medseg_gym.prompts import AddBox, AddPoint, Prompt

EpisodeT = TypeVar("EpisodeT", bound=Any)  # an `Episode` or a `VolumeEpisode`


class StepResult(NamedTuple):
    """Reward, whether the episode is over, and the scalars that `info` reports."""

    reward: float
    terminated: bool
    info: dict[str, Any]


class SlotEngine(Generic[EpisodeT]):
    """Holds an episode in each of its slots, and takes steps that are judged and have their masks.

    A subclass sets the attributes, and makes the masks.

    Attributes:
        reward: Called with the episode after every step.
        episodes: Of every slot; None before its first reset.
    """

    reward: rewards.Reward
    episodes: list[EpisodeT | None]

    def episode(self, slot: int) -> EpisodeT:
        """The episode in a slot.

        Raises:
            EpisodeError: The slot was never reset.
        """
        episode = self.episodes[slot]
        if episode is None:
            raise EpisodeError(f"slot {slot} has no episode; reset it before the first step")
        return episode

    def _info(self, episode: EpisodeT) -> dict[str, Any]:
        """Return the scalars of `info` that hold at any time."""
        raise NotImplementedError

    def _take(
        self, episode: EpisodeT, prompt: Any, effect: Any, error: str, state: Any
    ) -> StepResult:
        """Record a step as it was judged, and pay for it."""
        step = episode.record(prompt, effect, error, state)
        value, terms = (
            rewards.pay(self.reward, episode) if episode.case.truth_known else (math.nan, {})
        )
        episode.rewards.append(value)
        info = {
            **self._info(episode),
            **(EpisodeSummary.of(episode).last_info if episode.done else {}),
            "tool": step.tool,
            "valid": step.valid,
            "error": step.error,
            **terms,
        }
        return StepResult(value, episode.done, info)


class EpisodeEngine(SlotEngine[Episode]):
    """Runs one episode in each of `num_slots` slots over one backbone.

    A step of any number of slots costs one `Backbone.decode`, one resize and one count per
    distinct image size, and one transfer to the host.

    Args:
        backbone: The segmenter.
        num_slots: Slots, each holding an `Episode` or None.
        reward: Name or `Reward`.
        max_steps: Actions per episode, at least 1.
        options: How prompts become decoder rows.
        own_memory: Give every mask and its logits memory of their own. Otherwise they are parts of
            their batch, which stays in memory as long as any of them: fine where episodes live
            and end together.
        mask_side: Side of the square at which somebody will look at the masks of steps. On a GPU
            they then come with the counts, and the host waits once a step. None where nobody does.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_slots: int = 1,
        reward: str | rewards.Reward = "dice_gain",
        max_steps: int = 5,
        options: DecodeOptions | None = None,
        own_memory: bool = False,
        mask_side: int | None = None,
    ) -> None:
        if num_slots < 1 or max_steps < 1:
            raise EpisodeError(f"need num_slots, max_steps >= 1, got {num_slots}, {max_steps}")
        self.backbone = backbone
        self.reward = rewards.make(reward)
        self.max_steps = max_steps
        self.options = options or DecodeOptions()
        self.own_memory = own_memory
        self.mask_side = mask_side
        self.episodes: list[Episode | None] = [None] * num_slots
        self.cache = embedding_cache(backbone)
        self._mask_inputs = MaskInputs(backbone)

    def reset(
        self,
        slots: Sequence[int],
        cases: Sequence[Case],
        max_steps: Sequence[int | None] | None = None,
    ) -> list[Episode]:
        """Start an episode on `cases[i]` in `slots[i]`; each distinct image is encoded once.

        Args:
            slots: Distinct.
            cases: One per slot.
            max_steps: One per slot; None takes the engine's own.

        Raises:
            BackboneError: An embedding that is not finite, naming the cases; no slot is changed.
        """
        check_slots(slots, cases)
        limits = [given or self.max_steps for given in max_steps or [None] * len(slots)]
        try:
            embeddings = self.cache.get(
                self.backbone, [c.image for c in cases], [c.content_hash for c in cases]
            )
        except NonFiniteError as error:
            # It names images, some of which another process was asked for.
            ill = [i for i, c in enumerate(cases) if f"image {c.content_hash}" in error.names]
            if not ill:
                raise
            names = case_names([cases[i] for i in ill])
            raise NonFiniteError(error.backbone, error.what, ill, names) from None
        truths = self._truths(cases)
        if self.options.text_start:
            cases = begin_with_text(self.backbone, cases, embeddings, truths)
        logits = self._mask_inputs.of([case.initial_mask for case in cases], embeddings)
        started = []
        for slot, case, limit, embedding, begun, truth in zip(
            slots, cases, limits, embeddings, logits, truths, strict=True
        ):
            episode = Episode(case, truth, limit, embedding, begun)
            self.episodes[slot] = episode
            started.append(episode)
        return started

    def _truths(self, cases: Sequence[Case]) -> list[torch.Tensor]:
        """Masks of cases on the backbone's device, in one transfer."""
        if not cases:
            return []
        masks = [case.mask for case in cases]
        flat = to_device(np.concatenate([mask.ravel() for mask in masks]), self.backbone.device)
        parts = flat.split([mask.size for mask in masks])
        pairs = zip(parts, masks, strict=True)
        return [self._kept(part.view(mask.shape)) for part, mask in pairs]

    def step(
        self,
        slots: Sequence[int],
        prompts: Sequence[Prompt | PromptError | None],
        options: Sequence[DecodeOptions | None] | None = None,
    ) -> list[StepResult]:
        """Take one action in each slot named.

        Args:
            slots: Distinct slots whose episodes are not over.
            prompts: One per slot; a PromptError or None for an action that could not be read.
            options: For this step, one per slot; None takes the engine's own.

        Returns:
            One result per slot. Invalid actions change nothing, cost a step and say so in `info`.

        Raises:
            EpisodeError: A slot without a running episode.
            BackboneError: The backbone's numbers are not finite; no step is recorded.
            RewardError: The reward's are not.
        """
        check_slots(slots, prompts)
        episodes = [self.episode(slot) for slot in slots]
        judged = [e.judge(p) for e, p in zip(episodes, prompts, strict=True)]
        decoding = [i for i, (effect, _) in enumerate(judged) if effect == "decode"]
        states = self._decode(
            [episodes[i] for i in decoding],
            [prompts[i] for i in decoding],  # type: ignore[misc]
            None if options is None else [options[i] for i in decoding],
            self.mask_side,
        )
        made = dict(zip(decoding, states, strict=True))
        results = []
        for i, (episode, prompt) in enumerate(zip(episodes, prompts, strict=True)):
            effect, error = judged[i]
            results.append(self._take(episode, prompt, effect, error, made.get(i)))
        return results

    def _info(self, episode: Episode) -> dict[str, Any]:
        return episode_info(episode)

    def preview(
        self, episodes: Sequence[Episode], prompts: Sequence[AddBox | AddPoint]
    ) -> list[MaskState]:
        """Make the state that a prompt would lead to in each episode, without taking a step.

        Rows, decode and counts are those of `step`, in one call; nothing is recorded or changed.

        Args:
            episodes: Running ones of this engine; one may stand there for each of several prompts.
            prompts: One per episode.

        Raises:
            EpisodeError: An episode that is over, or a prompt that makes no mask.
            BackboneError: As in `step`.
        """
        for episode, prompt in zip(episodes, prompts, strict=True):
            effect, error = episode.judge(prompt)
            if effect != "decode":
                raise EpisodeError(
                    f"only a valid box or click can be previewed, not {prompt!r} "
                    f"on case {episode.case.key!r}{': ' if error else ''}{error}"
                )
        return self._decode(episodes, prompts)

    def _decode(
        self,
        episodes: Sequence[Episode],
        prompts: Sequence[AddBox | AddPoint],
        options: Sequence[DecodeOptions | None] | None = None,
        side: int | None = None,
    ) -> list[MaskState]:
        if not episodes:
            return []
        fetch = None if side is None else partial(sample_squares, side=side)
        chosen = [given or self.options for given in options or [None] * len(episodes)]
        in_force = [e.with_prompt(p) for e, p in zip(episodes, prompts, strict=True)]
        rows = [
            self._row(episode, prompt, box, points, given)
            for episode, prompt, (box, points), given in zip(
                episodes, prompts, in_force, chosen, strict=True
            )
        ]
        cases, truths = [e.case for e in episodes], [e.truth for e in episodes]
        measured, low = decode_masks(self.backbone, rows, cases, truths, fetch)
        return [
            MaskState(
                self._kept(one.mask),
                one.pixels,
                one.intersection,
                box,
                points,
                self._kept(logits),
                None if one.fetched is None else PackedMask.of(one.fetched),
            )
            for one, (box, points), logits in zip(measured, in_force, low, strict=True)
        ]

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() if self.own_memory else tensor

    def _row(
        self,
        episode: Episode,
        prompt: AddBox | AddPoint,
        box: AddBox | None,
        points: tuple[AddPoint, ...],
        options: DecodeOptions,
    ) -> PromptRow:
        assert episode.embedding is not None
        logits = episode.state.logits
        if options.prompt_memory == "newest" and logits is not None:
            box = prompt if isinstance(prompt, AddBox) else None
            points = (prompt,) if isinstance(prompt, AddPoint) else ()
        if not (options.mask_input and self.backbone.takes_mask_input):
            logits = None
        # A mask to begin with says what the first click means.
        begun = logits is not None and episode.state is episode.start
        ambiguous = box is None and len(points) == 1 and not begun
        multimask = {"auto": ambiguous, "always": True, "never": False}[options.multimask]
        text = episode.case.target if options.text_prompt else None
        return PromptRow(episode.embedding, box, points, logits, multimask, text)


def check_slots(slots: Sequence[int], values: Sequence[object]) -> None:
    """Raise an `EpisodeError` unless slots are distinct and there is one value for each."""
    if len(slots) != len(values) or len(set(slots)) != len(slots):
        raise EpisodeError(
            f"slots must be distinct, one per case or prompt, got {list(slots)} "
            f"for {len(values)} of them"
        )


def episode_info(episode: Episode) -> dict[str, Any]:
    """The scalars of `info` that hold at any time, at reset too."""
    return {
        "dice": episode.dice,
        "iou": episode.iou,
        "case": episode.case.key,
        "tool": "",
        "valid": True,
        "error": "",
        "cost": 0.0,
        "stopped": episode.stopped,
    }
