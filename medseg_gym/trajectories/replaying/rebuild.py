"""From a stored trajectory back to an Episode, and to the case it was played on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medseg_gym.cases import Case, CaseSource, VolumeCase, load_cases
from medseg_gym.cases.volume_source import VolumeSource, load_volumes
from medseg_gym.episodes import Episode, MaskState
from medseg_gym.errors import CaseError
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.trajectory import Trajectory

AnyCases = str | CaseSource | VolumeSource | Sequence[Case] | Sequence[VolumeCase] | None


class StoredCases:
    """Finds the cases of trajectories again.

    Args:
        cases: Where to look instead of the specs in the store: a spec, a source, or Cases
            (VolumeCases where the episodes are on volumes).

    Raises:
        CaseError: `cases` cannot be used.
    """

    def __init__(self, cases: AnyCases = None) -> None:
        self._given = cases
        self._sources: dict[tuple[str | None, str, str], Any] = {}

    def find(self, trajectory: Trajectory) -> Case:
        """The case of a trajectory, checked to have the image and truth of the recording.

        Raises:
            TrajectoryError: The store does not say where cases came from, the case is gone or has
                changed, or it is a volume.
        """
        refuse_volume(trajectory)
        case: Case = self._find(trajectory, load_cases)
        return case

    def find_volume(self, trajectory: Trajectory) -> VolumeCase:
        """The same for the trajectory of a volume."""
        case: VolumeCase = self._find(trajectory, load_volumes)
        return case

    def _find(self, trajectory: Trajectory, load: Callable[..., Any]) -> Any:
        facts = trajectory.facts
        place = None if self._given is not None else facts.cases, facts.split, load.__name__
        if place not in self._sources:
            spec = facts.cases if self._given is None else self._given
            if spec is None:
                raise TrajectoryError(
                    f"{facts.key.case!r} was recorded from cases in memory ({facts.source}); "
                    "give them with cases="
                )
            self._sources[place] = load(spec, facts.split or "train")
        source = self._sources[place]
        try:
            case = source[source.index_of(facts.key.case)]
        except CaseError as error:
            raise TrajectoryError(f"a recorded case is not there any more: {error}") from None
        if case.content_hash != facts.image_hash:
            raise TrajectoryError(f"case {case.key!r} has another image than when it was recorded")
        same_knowledge = case.truth_known == facts.truth_known
        if not same_knowledge or not np.array_equal(case.mask, trajectory.truth):
            raise TrajectoryError(f"case {case.key!r} has another truth than when it was recorded")
        begun = trajectory.initial_mask
        if begun is not None and not isinstance(case, VolumeCase):
            # What a case begins with may come from elsewhere; the record is what was played.
            case = replace(case, initial_mask=begun)
        return case


def refuse_volume(trajectory: Trajectory) -> None:
    """Refuse the trajectory of a volume where images alone can be.

    Raises:
        TrajectoryError: It is one.
    """
    if trajectory.facts.depth is not None:
        raise TrajectoryError(
            f"{trajectory.key.case!r} is a volume of {trajectory.facts.depth} slices, and this is "
            "for episodes on images; volumes can be replayed, re-scored and summarised, and "
            "rebuild_volume_episode gives their episodes"
        )


def stored_case(trajectory: Trajectory) -> Case:
    """The case as far as the store knows it: truth and names, with a black image."""
    facts = trajectory.facts
    return Case(
        facts.key.case,
        np.zeros((facts.height, facts.width, 3), np.uint8),
        trajectory.truth,
        target=facts.target,
        modality=facts.modality,
        group=facts.group,
        source=facts.source,
        synthetic=facts.synthetic,
        truth_known=facts.truth_known,
        initial_mask=trajectory.initial_mask,
    )


def rebuild_episode(trajectory: Trajectory, case: Case | None = None) -> Episode:
    """The Episode with its stored masks, without a backbone; it holds no logits.

    Args:
        trajectory: As stored.
        case: From `StoredCases.find`; None takes `stored_case`.

    Raises:
        TrajectoryError: It is that of a volume.
        EpisodeError: The record contradicts the rules of episodes.
    """
    refuse_volume(trajectory)
    case = stored_case(trajectory) if case is None else case
    truth = torch.from_numpy(case.mask.copy())
    max_steps = int(trajectory.facts.options.get("max_steps", len(trajectory.steps)))
    episode = Episode(case, truth, max_steps)
    for step, mask in zip(trajectory.steps, trajectory.masks, strict=True):
        effect, error = episode.judge(step.prompt)  # type: ignore[arg-type]
        state = None
        if effect == "decode":
            prediction = torch.from_numpy(mask)
            both = int((prediction & truth).sum())
            box, points = episode.with_prompt(step.prompt)  # type: ignore[arg-type]
            state = MaskState(prediction, int(prediction.sum()), both, box, points)
        episode.record(step.prompt, effect, step.error or error, state)  # type: ignore[arg-type]
    episode.rewards = trajectory.rewards
    return episode
