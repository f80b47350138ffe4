"""From a stored trajectory back to an Episode, and to the case it was played on."""

from __future__ import annotations

import numpy as np
import torch

from medseg_gym.cases import Case, CaseSource, load_cases
from medseg_gym.episodes import Episode, MaskState
from medseg_gym.errors import CaseError
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.trajectory import Trajectory


class StoredCases:
    """Finds the cases of trajectories again.

    Args:
        cases: Where to look instead of the specs in the store: a spec, a source, or Cases.

    Raises:
        CaseError: `cases` cannot be used.
    """

    def __init__(self, cases: str | CaseSource | list[Case] | None = None) -> None:
        self._given = cases
        self._sources: dict[tuple[str | None, str], CaseSource] = {}

    def find(self, trajectory: Trajectory) -> Case:
        """The case of a trajectory, checked to have the image and truth of the recording.

        Raises:
            TrajectoryError: The store does not say where cases came from, or the case is gone or
                has changed.
        """
        facts = trajectory.facts
        place = None if self._given is not None else facts.cases, facts.split
        if place not in self._sources:
            spec = facts.cases if self._given is None else self._given
            if spec is None:
                raise TrajectoryError(
                    f"{facts.key.case!r} was recorded from cases in memory ({facts.source}); "
                    "give them with cases="
                )
            self._sources[place] = load_cases(spec, facts.split or "train")
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
        return case


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
    )


def rebuild_episode(trajectory: Trajectory, case: Case | None = None) -> Episode:
    """The Episode with its stored masks, without a backbone; it holds no logits.

    Args:
        trajectory: As stored.
        case: From `StoredCases.find`; None takes `stored_case`.

    Raises:
        EpisodeError: The record contradicts the rules of episodes.
    """
    case = stored_case(trajectory) if case is None else case
    truth = torch.from_numpy(case.mask.copy())
    max_steps = int(trajectory.facts.options.get("max_steps", len(trajectory.steps)))
    episode = Episode(case, truth, max_steps)
    for step, mask in zip(trajectory.steps, trajectory.masks, strict=True):
        effect, error = episode.judge(step.prompt)
        state = None
        if effect == "decode":
            prediction = torch.from_numpy(mask)
            both = int((prediction & truth).sum())
            box, points = episode.with_prompt(step.prompt)  # type: ignore[arg-type]
            state = MaskState(prediction, int(prediction.sum()), both, box, points)
        episode.record(step.prompt, effect, step.error or error, state)
    episode.rewards = trajectory.rewards
    return episode
