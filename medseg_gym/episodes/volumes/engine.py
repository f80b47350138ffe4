"""VolumeEngine: the only place where a step in a volume happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg_gym.backbones.memory import MemoryBackbone
from medseg_gym.backbones.protocol import Backbone
from medseg_gym.backbones.volumes import VolumeBackbone
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes import rewards
from medseg_gym.episodes.decode_options import DecodeOptions
from medseg_gym.episodes.engine import SlotEngine, StepResult, check_slots
from medseg_gym.episodes.volumes.decoding import SliceDecoder, SliceRequest
from medseg_gym.episodes.volumes.episode import (
    SliceState,
    VolumeEffect,
    VolumeEpisode,
    VolumeState,
)
from medseg_gym.episodes.volumes.memory import propagate_by_memory
from medseg_gym.episodes.volumes.propagation import Plan, PropagationOptions, propagate
from medseg_gym.episodes.volumes.whole import segment_whole
from medseg_gym.errors import EpisodeError, PromptError
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import Propagate, SlicePrompt, VolumePrompt


class VolumeEngine(SlotEngine[VolumeEpisode]):
    """Runs one volume episode in each of `num_slots` slots over one backbone.

    Prompts of all slots share one decode; where some of them propagate, every step of propagation
    is one decode for all fronts of all volumes. A backbone with a memory of slices steps through
    them by that instead, one slice of one volume at a time; one that segments whole volumes makes
    the masks of all slices with every prompt.

    Args:
        backbone: The segmenter.
        num_slots: Slots, each holding a `VolumeEpisode` or None.
        reward: Name or `Reward` that asks for Dice alone; it is called with the volume's episode.
        max_steps: Actions per episode, at least 1.
        options: How prompts become decoder rows.
        propagation: How masks are carried from slice to slice.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_slots: int = 1,
        reward: str | rewards.Reward = "dice_gain",
        max_steps: int = 10,
        options: DecodeOptions | None = None,
        propagation: PropagationOptions | None = None,
    ) -> None:
        if num_slots < 1 or max_steps < 1:
            raise EpisodeError(f"need num_slots, max_steps >= 1, got {num_slots}, {max_steps}")
        self.backbone = backbone
        self.reward = rewards.make(reward)
        self.max_steps = max_steps
        self.decoder = SliceDecoder(backbone, options or DecodeOptions())
        self.propagation = propagation or PropagationOptions()
        self.episodes: list[VolumeEpisode | None] = [None] * num_slots

    def reset(self, slots: Sequence[int], cases: Sequence[VolumeCase]) -> list[VolumeEpisode]:
        """Start an episode on `cases[i]` in `slots[i]`; nothing is encoded before it is needed."""
        started = []
        for slot, case in zip(slots, cases, strict=True):
            episode = VolumeEpisode(case, self.max_steps)
            self.episodes[slot] = episode
            started.append(episode)
        return started

    def step(
        self, slots: Sequence[int], prompts: Sequence[VolumePrompt | PromptError | None]
    ) -> list[StepResult]:
        """Take one action in each slot named.

        Args:
            slots: Distinct slots whose episodes are not over.
            prompts: One per slot; a PromptError or None for an action that could not be read.

        Returns:
            One result per slot. Invalid actions change nothing, cost a step and say so in `info`.

        Raises:
            EpisodeError: A slot without a running episode, or named twice.
            BackboneError: The backbone's numbers are not finite; no step is recorded.
            RewardError: The reward's are not.
        """
        check_slots(slots, prompts)
        episodes = [self.episode(slot) for slot in slots]
        judged = [e.judge(p) for e, p in zip(episodes, prompts, strict=True)]
        plans = {
            i: plan
            for i, (episode, prompt, (effect, _)) in enumerate(
                zip(episodes, prompts, judged, strict=True)
            )
            if (plan := self._plan(episode, prompt, effect)) is not None
        }
        made = self._run(plans)
        results = []
        for i, (episode, prompt, (effect, error)) in enumerate(
            zip(episodes, prompts, judged, strict=True)
        ):
            state: VolumeState | None = None
            if i in made:
                state = episode.state.with_slices(made[i], effect == "propagate")
            results.append(self._take(episode, prompt, effect, error, state))
        return results

    def _info(self, episode: VolumeEpisode) -> dict[str, Any]:
        return volume_info(episode)

    def _plan(
        self,
        episode: VolumeEpisode,
        prompt: VolumePrompt | PromptError | None,
        effect: VolumeEffect,
    ) -> Plan | None:
        if isinstance(self.backbone, VolumeBackbone):
            if effect in ("decode", "propagate"):
                new = prompt if isinstance(prompt, SlicePrompt) else None
                return segment_whole(episode, new, self.backbone)
            return None
        if effect == "decode" and isinstance(prompt, SlicePrompt):
            return _one_slice(episode, prompt)
        if effect == "propagate" and isinstance(prompt, Propagate):
            prompted = {i: episode.state.slices[i] for i in episode.state.prompted}
            if self.propagation.memory and isinstance(self.backbone, MemoryBackbone):
                memory = self.backbone.memory(episode.case.depth)
                return propagate_by_memory(episode.case, prompted, self.propagation, memory)
            return propagate(episode.case, prompted, self.propagation)
        return None

    def _run(self, plans: dict[int, Plan]) -> dict[int, dict[int, SliceState]]:
        """Run plans side by side: what all of them ask for next goes into one decode."""
        made: dict[int, dict[int, SliceState]] = {}
        answers: dict[int, list[SliceState] | None] = dict.fromkeys(plans)
        while answers:
            asked: dict[int, list[SliceRequest]] = {}
            for i, answer in answers.items():
                try:
                    asked[i] = plans[i].send(answer)  # type: ignore[arg-type]
                except StopIteration as finished:
                    made[i] = finished.value
            states = iter(self.decoder.decode([one for some in asked.values() for one in some]))
            answers = {i: [next(states) for _ in some] for i, some in asked.items()}
        return made


def _one_slice(episode: VolumeEpisode, prompt: SlicePrompt) -> Plan:
    now = episode.state.slices.get(prompt.slice)
    box, points = (None, ()) if now is None else (now.box, now.points)
    if isinstance(prompt.prompt, AddBox):
        box = prompt.prompt
    else:
        points = (*points, prompt.prompt)
    (state,) = yield [
        SliceRequest(
            episode.case,
            prompt.slice,
            box,
            points,
            carried=None if now is None or box is not None else now.carried,
            corrects=now is not None and (now.corrects or not now.prompted),
            logits=None if now is None else now.logits,
        )
    ]
    return {prompt.slice: state}


def volume_info(episode: VolumeEpisode) -> dict[str, Any]:
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
        "slice": episode.view,
        "prompted_slices": len(episode.state.prompted),
        "mask_slices": sum(one.pixels > 0 for one in episode.state.slices.values()),
    }
