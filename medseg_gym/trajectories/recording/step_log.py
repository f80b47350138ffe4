"""Step log of both recorders: follow the episodes in the slots and write down every step."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from medseg_gym.cases import Case, VolumeCase
from medseg_gym.envs.core import EnvCore
from medseg_gym.envs.volumes.core import VolumeCore
from medseg_gym.episodes import Episode, MaskState, Step
from medseg_gym.episodes.masks import group_by_shape
from medseg_gym.episodes.summary import LAST_INFO
from medseg_gym.episodes.volumes import VolumeEpisode, VolumeState, VolumeStep
from medseg_gym.policy import Policy
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.recording.provenance import shared_facts
from medseg_gym.trajectories.store.mask_codec import pack_mask
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.writer import TrajectoryWriter
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, RecordedStep

AnyEpisode = Episode | VolumeEpisode
AnyStep = Step | VolumeStep
KeyOf = Callable[[Any], EpisodeKey | None]
"""Given an `Episode`, or a `VolumeEpisode` where volumes are played."""

_COLUMNS = {"dice", "iou", "case", "tool", "valid", "error", "stopped", "slice"}
_OF_SLICES = {"prompted_slices", "mask_slices"}
_NO_TERMS = {*_COLUMNS, *_OF_SLICES, *LAST_INFO}  # info with a column, or that follows from columns


class Sink(Protocol):
    """Takes what is recorded: a `TrajectoryWriter`, or a buffer in memory."""

    def begin(self, facts: EpisodeFacts) -> str:
        """See `TrajectoryWriter.begin`."""
        ...

    def add(
        self,
        steps: Sequence[tuple[str, RecordedStep]],
        accepted: Sequence[bool | None] | None = None,
    ) -> None:
        """See `TrajectoryWriter.add`."""
        ...

    def abandon(self, id: str) -> None:
        """See `TrajectoryWriter.abandon`."""
        ...


class StepLog:
    """Episode of each slot, and the writer that its steps go to.

    Args:
        core: Of the environment.
        store: See `recorder.Recorder`, as for the others.
        seed: Likewise.
        policy: Likewise.
        key_of: Likewise.
        fsync: Likewise.
    """

    def __init__(
        self,
        core: EnvCore | VolumeCore,
        store: str | Path | Sink,
        seed: int | None,
        policy: str | Policy,
        key_of: KeyOf | None,
        fsync: bool,
    ) -> None:
        self.core = core
        self.accepts: Callable[[Any], bool] | None = getattr(policy, "accepts", None)
        self.seed = secrets.randbits(62) if seed is None else int(seed)
        self._own_writer: TrajectoryWriter | None = None
        if isinstance(store, (str, Path)):
            store = self._own_writer = TrajectoryWriter(store, fsync=fsync)
        self.writer = store
        self._counts: Counter[str] = Counter()
        if key_of is None and seed is not None and isinstance(store, TrajectoryWriter):
            known = [k for k in TrajectoryStore(store.path).keys() if k.seed == self.seed]
            for key in known:
                self._counts[key.case] = max(self._counts[key.case], key.rollout + 1)
        self._key_of = key_of or self._next_key
        self.facts = shared_facts(core, policy)
        self._running: dict[int, _Running] = {}
        # A forked episode has the steps of its source, the same objects, and is recorded with them.
        self._rows: WeakKeyDictionary[AnyStep, RecordedStep] = WeakKeyDictionary()

    def _next_key(self, episode: AnyEpisode) -> EpisodeKey:
        case = episode.case.key
        self._counts[case] += 1
        return EpisodeKey(case, self.seed, self._counts[case] - 1)

    def episodes(self) -> list[tuple[AnyEpisode | None, int]]:
        """The episode in every slot now and the steps it has taken."""
        return [(e, len(e.steps) if e else 0) for e in self.core.engine.episodes]

    def leave(self, slots: Sequence[int]) -> None:
        """The episodes in these slots go no further."""
        for slot in slots:
            running = self._running.pop(slot, None)
            if running and running.id:
                self.writer.abandon(running.id)

    def record(
        self,
        before: Sequence[tuple[AnyEpisode | None, int]],
        rewards: Any,
        terminations: Any,
        truncations: Any,
        info_of: Callable[[int], dict[str, Any]],
    ) -> None:
        """Record the newest step of every episode that took one.

        Args:
            before: As `episodes` gave it when the step began.
            rewards: One per slot, as are the next two.
            terminations: Whether it is over.
            truncations: Whether it was cut off.
            info_of: Gives a slot's info.
        """
        stepped = []
        for slot, (episode, taken) in enumerate(before):
            if episode is None or len(episode.steps) == taken:
                continue  # idle, or just reset
            running = self._running.get(slot)
            if running is None or running.episode is not episode:  # just reset, or forked
                self.leave([slot])
                running = self._running[slot] = self._begin(episode, taken)
            if running.id is not None:
                stepped.append((slot, running))
        self._pack([running for _, running in stepped])
        rows: list[tuple[str, RecordedStep]] = []
        verdicts: list[bool | None] = []
        for slot, running in stepped:
            earlier = [(running.id, row) for row in running.earlier if running.id is not None]
            rows += earlier
            verdicts += [None] * len(earlier)
            running.earlier = []
            episode, id = running.episode, running.id
            assert id is not None
            step = episode.steps[-1]
            row = step_record(
                step,
                running.mask,
                rewards[slot],
                info_of(slot),
                terminations[slot],
                truncations[slot],
            )
            rows.append((id, row))
            self._rows[step] = row
            verdicts.append(
                bool(self.accepts(episode)) if row.ended and self.accepts is not None else None
            )
            if row.ended:
                running.id = None  # it may idle in its slot from now on
        if not rows:
            return
        try:
            self.writer.add(rows, verdicts)
        except TrajectoryError:
            # A step may be missing now: what these episodes have is kept, and no more is added.
            for id, _ in rows:
                self.writer.abandon(id)
            for _, running in stepped:
                running.id = None
            raise

    def _begin(self, episode: AnyEpisode, taken: int) -> _Running:
        """Begin to record an episode, from its first step also where it was forked at a later one.

        It is left out where nobody wants it, and where steps were taken before anybody recorded.
        """
        earlier = [self._rows[step] for step in episode.steps[:taken] if step in self._rows]
        key = self._key_of(episode) if len(earlier) == taken else None
        if key is None:
            return _Running(episode, None)
        id = self.writer.begin(episode_facts(key, episode.case, self.facts))
        return _Running(episode, id, earlier)

    def _pack(self, running: Sequence[_Running]) -> None:
        """Pack the masks that are new, with one transfer per distinct size."""
        changed = [one for one in running if one.episode.state is not one.state]
        for one, mask in zip(changed, _masks([one.episode for one in changed]), strict=True):
            one.mask, one.state = pack_mask(mask), one.episode.state

    def close(self) -> None:
        """Keep running episodes as unfinished; close the writer if it is ours."""
        self.leave(list(self._running))
        if self._own_writer is not None:
            self._own_writer.close()


def _masks(episodes: Sequence[AnyEpisode]) -> list[np.ndarray]:
    """Masks as they are now, with one transfer per distinct size of images."""
    masks: list[np.ndarray | None] = [None] * len(episodes)
    images: dict[int, torch.Tensor] = {}
    for i, episode in enumerate(episodes):
        if isinstance(episode, VolumeEpisode):
            masks[i] = episode.mask()
        else:
            images[i] = episode.state.mask
    places = list(images)
    for members in group_by_shape(list(images.values())):
        stacked = torch.stack([images[places[m]] for m in members]).cpu().numpy()
        for m, mask in zip(members, stacked, strict=True):
            masks[places[m]] = mask
    return [mask for mask in masks if mask is not None]


class _Running:
    """The recording of the episode in a slot; without an id it is left out."""

    def __init__(
        self, episode: AnyEpisode, id: str | None, earlier: Sequence[RecordedStep] = ()
    ) -> None:
        self.episode, self.id = episode, id
        self.earlier = list(earlier)  # steps of a forked episode that are yet to be written
        self.state: MaskState | VolumeState | None = None
        self.mask = b""


def episode_facts(
    key: EpisodeKey, case: Case | VolumeCase, shared: Mapping[str, Any]
) -> EpisodeFacts:
    """Return the facts of a whole episode.

    Args:
        key: Its name.
        case: What is segmented.
        shared: See `provenance.shared_facts`.
    """
    return EpisodeFacts(
        key=key,
        group=case.group,
        target=case.target,
        modality=case.modality,
        synthetic=case.synthetic,
        height=case.height,
        width=case.width,
        image_hash=case.content_hash,
        depth=case.depth if isinstance(case, VolumeCase) else None,
        truth=pack_mask(case.mask) if case.truth_known else b"",
        initial_mask=_initial_mask(case),
        **shared,
    )


def _initial_mask(case: Case | VolumeCase) -> bytes | None:
    if isinstance(case, VolumeCase) or case.initial_mask is None:
        return None
    return pack_mask(case.initial_mask)


def step_record(
    step: AnyStep,
    mask: bytes,
    reward: float,
    info: Mapping[str, Any],
    terminated: bool,
    truncated: bool = False,
) -> RecordedStep:
    """Return the record of a step.

    Args:
        step: As the episode holds it.
        mask: Afterwards, packed (see `mask_codec`).
        reward: As the engine or a wrapper gave it.
        info: The step's scalars; those without a column of their own become `terms`.
        terminated: The episode is over.
        truncated: A time limit cut it off.
    """
    return RecordedStep(
        prompt=step.prompt,
        valid=step.valid,
        error=step.error,
        reward=float(reward),
        terms=_terms(info),
        dice=step.dice,
        iou=step.iou,
        mask=mask,
        stopped=step.effect == "stop",
        terminated=bool(terminated),
        truncated=bool(truncated),
    )


def _terms(info: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in info.items()
        if name not in _NO_TERMS and isinstance(value, (bool, int, float, np.number, np.bool_))
    }
