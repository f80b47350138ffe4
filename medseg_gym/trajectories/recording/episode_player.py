"""EpisodePlayer: environment and policy of one worker, whose episodes are kept in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

from medseg_gym import annotators
from medseg_gym.backbones import embedding_cache
from medseg_gym.episodes import Episode
from medseg_gym.parallel.compute import choose_gpu
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.trajectories.options import GenerateOptions
from medseg_gym.trajectories.recording.episode_work import SETTINGS, EpisodeJob, PlayedEpisodes
from medseg_gym.trajectories.recording.recorder import VectorRecorder
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, RecordedStep, Trajectory


class EpisodePlayer:
    """Plays batches as if nothing had been played before.

    Args:
        options: What is played.
        number: Of the worker.
    """

    usage: dict[str, float] = {}  # noqa: RUF012  (annotators ask no server)

    def __init__(self, options: GenerateOptions, number: int = 0) -> None:
        self.options, self.number = options, number

    def play(self, job: EpisodeJob) -> PlayedEpisodes:
        """Play a batch, or load what is needed for it."""
        recorder, buffer, rollout = self._recorder
        rollout.begin(job.rollout)
        if job.keys:
            embedding_cache(recorder.core.backbone).clear()
            seed = rollout_seed(self.options.seed, job.rollout)
            for _ in play_cases(recorder, self._policy, list(job.keys), seed):  # type: ignore[arg-type]
                pass
        return PlayedEpisodes(self._settings, buffer.take())

    def close(self) -> None:
        """Close the environment."""
        if "_envs" in self.__dict__:
            self._envs.close()

    @cached_property
    def _envs(self) -> Any:
        options = self.options
        return make_envs(
            options.num_envs,
            options.env,
            cases=options.cases,
            split=options.split,
            backbone=options.backbone,
            checkpoint=options.checkpoint,
            device=choose_gpu(options.device, self.number),
            max_steps=options.max_steps,
            reward=options.reward,
            **options.prompt_arguments(),
        )

    @cached_property
    def _policy(self) -> Any:
        return annotators.make(self.options.annotator, self._envs.codec)

    @cached_property
    def _recorder(self) -> tuple[VectorRecorder, EpisodeBuffer, _Rollout]:
        buffer, rollout = EpisodeBuffer(), _Rollout(self.options.seed)
        recorder = VectorRecorder(self._envs, buffer, policy=self._policy, key_of=rollout.key_of)
        return recorder, buffer, rollout

    @cached_property
    def _settings(self) -> tuple[Any, ...]:
        facts = self._recorder[0].log.facts
        facts = {**facts, "options": json.dumps(facts["options"], sort_keys=True)}
        return tuple(facts[name] for name in SETTINGS)


class EpisodeBuffer:
    """A recorder's sink in memory, with the methods of a `TrajectoryWriter` that it uses."""

    def __init__(self) -> None:
        self._begun = 0
        self._facts: dict[str, EpisodeFacts] = {}
        self._steps: dict[str, list[RecordedStep]] = {}
        self._finished: list[Trajectory] = []

    def begin(self, facts: EpisodeFacts) -> str:
        """Begin an episode; returns its id."""
        self._begun += 1
        id = str(self._begun)
        self._facts[id], self._steps[id] = facts, []
        return id

    def add(
        self,
        steps: Sequence[tuple[str, RecordedStep]],
        accepted: Sequence[bool | None] | None = None,
    ) -> None:
        """Record steps; one that ended finishes its episode."""
        verdicts = accepted if accepted is not None else [None] * len(steps)
        for (id, step), verdict in zip(steps, verdicts, strict=True):
            self._steps[id].append(step)
            if step.ended:
                taken = tuple(self._steps.pop(id))
                self._finished.append(Trajectory(id, self._facts.pop(id), taken, verdict))

    def abandon(self, id: str) -> None:
        """Forget an episode that goes no further."""
        self._facts.pop(id, None)
        self._steps.pop(id, None)

    def take(self) -> tuple[Trajectory, ...]:
        """Return what was finished since the last call, in the order that it was begun."""
        finished, self._finished = self._finished, []
        return tuple(sorted(finished, key=lambda one: int(one.id)))


class _Rollout:
    """Keys of the episodes of a batch."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0
        self._recorded: set[str] = set()

    def begin(self, number: int) -> None:
        """Begin a batch of the rollout with a number."""
        self.number, self._recorded = number, set()

    def key_of(self, episode: Episode) -> EpisodeKey | None:
        """Name an episode; a slot that fills up a short batch repeats a case, and is left out."""
        case = episode.case.key
        if case in self._recorded:
            return None
        self._recorded.add(case)
        return EpisodeKey(case, self.seed, self.number)


def rollout_seed(seed: int, rollout: int) -> int:
    """Return the seed of a rollout; the first one has that of the run."""
    if rollout == 0:
        return seed
    digest = blake2b(f"{seed}/{rollout}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
