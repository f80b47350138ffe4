"""EnvCore: cases, engine and view of n slots, which all environments are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medseg_gym import backbones
from medseg_gym.cases import CaseSource, load_cases
from medseg_gym.cases.case import ReadOnlyCase
from medseg_gym.cases.source import OneCase, Source
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.forking import settle_in_child
from medseg_gym.envs.options import E, EnvOptions
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.cut_answer import explain_cut
from medseg_gym.envs.views.protocol import Observations, View
from medseg_gym.episodes import Episode, EpisodeEngine, StepResult, episode_info
from medseg_gym.errors import BackboneError, CaseError, EpisodeError, MedSegError, ToolError
from medseg_gym.option_groups import AUTO_TOOLS
from medseg_gym.prompts import TOOLS, ArrayCodec, answered_tools


@dataclass(frozen=True, eq=False)
class SlotState:
    """A running episode as it was when its state was cloned; restoring it leaves it as it is.

    Args:
        core: Of the environment that it belongs to.
        episode: A copy that nobody plays, an `Episode` or a `VolumeEpisode`.
        generator: A copy of the slot's generator, from which later cases are drawn.
    """

    core: SlotStates
    episode: Any
    generator: np.random.Generator


class SlotStates:
    """Cloning and restoring of slots, for every core whose episodes fork.

    Attributes:
        engine: With an episode, or None, in every slot.
        view: Told of every fork.
    """

    engine: Any
    view: Any

    def clone_state(self, slot: int, generator: np.random.Generator) -> SlotState:
        """Copy the state of a slot.

        Args:
            slot: Whose episode is not over.
            generator: Of the slot.

        Raises:
            EpisodeError: The slot was never reset, or its episode is over.
        """
        episode = self.engine.episode(slot)
        if episode.done:
            raise EpisodeError(
                f"the episode in slot {slot} (case {episode.case.key!r}) is over, and only running "
                "ones can be cloned or forked; reset the slot first"
            )
        return SlotState(self, self._fork(episode), copy.deepcopy(generator))

    def restore_state(self, slot: int, state: SlotState) -> np.random.Generator:
        """Put a copy of a state into a slot, whatever was there.

        Returns:
            The slot's generator.

        Raises:
            EpisodeError: The state is that of another environment.
        """
        if state.core is not self:
            raise EpisodeError(
                f"the state of case {state.episode.case.key!r} was cloned from another "
                "environment, whose backbone and view its embedding and answers belong to"
            )
        self.engine.episodes[slot] = self._fork(state.episode)
        return copy.deepcopy(state.generator)

    def _fork(self, episode: Any) -> Any:
        forked = episode.fork()
        self.view.carry_over(episode, forked)
        return forked


def draw_cases(
    source: Source[OneCase],
    slots: Sequence[int],
    generator: Callable[[int], np.random.Generator],
    keys: Sequence[str | None],
    instead: str,
) -> list[OneCase]:
    """Draw or look up what slots play.

    Args:
        source: Of cases or volumes.
        slots: That are reset.
        generator: Gives a slot's generator, from which the case is drawn.
        keys: Per slot, the key of the case to play, or None to draw one.
        instead: What a case without a truth is good for; shown in the error.

    Raises:
        CaseError: No such key, or a case without a truth.
    """
    cases = []
    for slot, key in zip(slots, keys, strict=True):
        if key is None:
            index = int(generator(slot).integers(len(source)))
        else:
            index = source.index_of(key)
        case = source[index]
        if not isinstance(case, ReadOnlyCase):  # of a user's source
            raise CaseError(
                f"{source.noun} source {source.name!r} gave a {type(case).__name__} for number "
                f"{index} ({source.keys[index]!r}); a medseg_gym Case (or VolumeCase) is wanted"
            )
        if key is not None and case.key != key:
            raise CaseError(
                f"{source.noun} source {source.name!r} gave case {case.key!r} for the key {key!r}; "
                "source[i] must have the key source.keys[i]"
            )
        if not case.truth_known:
            raise CaseError(
                f"{source.noun} {case.key!r} of {source.name!r} has no truth, so there is nothing "
                f"to reward; {instead}"
            )
        cases.append(case)
    return cases


class EnvCore(SlotStates):
    """Slots that play episodes, seen as arrays or, under `ChatOptions`, as conversations.

    Args:
        options: As given to the environment.
        num_slots: How many.
    """

    engine: EpisodeEngine
    view: View

    def __init__(self, options: EnvOptions, num_slots: int) -> None:
        settle_in_child(options.backbone, options.device)
        self.source = load_cases(options.cases, options.split)
        self.backbone = backbones.load(
            options.backbone,
            options.checkpoint,
            options.device,
            **dict(options.backbone_options or {}),
        )
        self.options = options = settle_prompts(self.backbone, options)
        self.view = make_view(options, self.source)
        self.engine = EpisodeEngine(
            self.backbone,
            num_slots,
            options.reward,
            options.max_steps,
            options,
            mask_side=self.view.mask_side,
        )

    def episodes(self, slots: Sequence[int]) -> list[Episode]:
        """Episodes in slots that were reset."""
        return [self.engine.episode(slot) for slot in slots]

    def reset(
        self,
        slots: Sequence[int],
        generator: Callable[[int], np.random.Generator],
        keys: Sequence[str | None],
    ) -> list[dict[str, Any]]:
        """Start episodes.

        Args:
            slots: Slots to reset.
            generator: Gives a slot's generator, from which the case is drawn.
            keys: Per slot, the key of the case to play, or None to draw one.

        Returns:
            `info` per slot.
        """
        cases = draw_cases(
            self.source,
            slots,
            generator,
            keys,
            "such images are for the page of `medseg serve` and for replaying",
        )
        episodes = self.engine.reset(slots, cases)
        return [{**episode_info(episode), **self.view.start_info()} for episode in episodes]

    def step(self, slots: Sequence[int], actions: Any) -> list[StepResult]:
        """Take one action of the view per slot."""
        episodes = self.episodes(slots)
        readings = list(map(explain_cut, actions, self.view.read(actions)))
        results = self.engine.step(slots, [reading.prompt for reading in readings])
        self.view.keep(episodes, actions)
        for result, reading in zip(results, readings, strict=True):
            result.info.update(reading.info)
        return results

    def observe(self, slots: Sequence[int]) -> Observations:
        """Observations of slots, stacked."""
        return self.view.observe(self.episodes(slots))

    def frame(self, slot: int) -> np.ndarray:
        """Draw a slot's episode as `rendering.FRAME_SHAPE` uint8, whatever its image."""
        from medseg_gym.envs.rendering import draw_frame

        return draw_frame(self.engine.episode(slot))

    def undistorted_frame(self, slot: int) -> np.ndarray:
        """Draw a slot's episode in its image's own aspect ratio, (h, w, 3) uint8."""
        from medseg_gym.envs.rendering import draw_episode

        return draw_episode(self.engine.episode(slot))


class EnvAttributes:
    """Public attributes of every environment over an `EnvCore`, wrappers of it included.

    Attributes:
        core: Slots, engine and view that the environment is made of.
    """

    core: EnvCore

    @property
    def episodes(self) -> list[Episode | None]:
        """Episode of every slot, truth included, None before its first reset; not for policies."""
        return list(self.core.engine.episodes)

    @property
    def source(self) -> CaseSource:
        """Cases that are played."""
        return self.core.source

    @property
    def backbone(self) -> backbones.Backbone:
        """Segmenter that answers prompts with masks."""
        return self.core.backbone

    @property
    def engine(self) -> EpisodeEngine:
        """Engine that takes the steps; experts preview clicks with it."""
        return self.core.engine

    @property
    def view(self) -> Any:
        """Translator between episodes and the agent: `ArrayView` or `ChatView`.

        Any, because code over any environment knows by its options which of the two it has.
        """
        return self.core.view

    @property
    def codec(self) -> ArrayCodec:
        """Translator between prompts and integer actions, of the array view alone.

        Raises:
            AttributeError: The environment is a conversation, whose actions are texts.
        """
        codec: ArrayCodec | None = getattr(self.core.view, "codec", None)
        if codec is None:
            raise AttributeError(f"{type(self).__name__} has no codec: its actions are texts")
        return codec


def make_view(options: EnvOptions, source: CaseSource) -> View:
    """The view that belongs to the options."""
    if isinstance(options, ChatOptions):
        return ChatView(options)
    targets = source.targets if options.targets is None else options.targets
    return ArrayView(targets, options.image_size, options.bins, options.tools)


def read_reset_options(options: Mapping[str, Any] | None, *known: str) -> dict[str, Any]:
    """Check the options of `reset`.

    Raises:
        MedSegError: An option that does not exist, so that a misspelt one is not ignored.
    """
    given = dict(options or {})
    unknown = [name for name in given if name not in known]
    if unknown:
        raise MedSegError(f"reset takes no option {', '.join(map(repr, unknown))}; known: {known}")
    return given


def settle_prompts(backbone: backbones.Backbone, options: E, all_tools: Sequence[str] = TOOLS) -> E:
    """Return options whose tools are named, and which the backbone can answer.

    Args:
        backbone: The segmenter.
        options: Of an environment.
        all_tools: Those that its agents may be given at most.

    Raises:
        BackboneError: It takes no text, and is to be told the target.
        ToolError: It cannot answer a tool; the message names those that it can.
    """
    kinds = backbone.prompt_kinds
    for name in ("text_prompt", "text_start"):
        if getattr(options, name) and "text" not in kinds:
            raise BackboneError(
                f"backbone {backbone.name!r} takes no text prompts, only "
                f"{', '.join(sorted(kinds))}; leave {name} out"
            )
    usable = answered_tools(all_tools, kinds)
    if options.tools == AUTO_TOOLS:
        return replace(options, tools=usable)
    lacking = sorted({*options.tools} & {*all_tools} - {*usable})
    if lacking:
        raise ToolError(
            f"backbone {backbone.name!r} cannot answer the tools {lacking}; "
            f"leave them out: tools={list(usable)}"
        )
    return options
