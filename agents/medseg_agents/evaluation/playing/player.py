"""SplitPlayer: cases, policies and backbone of one worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cached_property
from typing import Any

from medseg_agents import policies
from medseg_agents.evaluation.evaluate import Outcome, outcome_of, run_settings
from medseg_agents.evaluation.options import PlayingOptions
from medseg_agents.evaluation.playing.jobs import Entry, Part, PlayedJob, PlayJob
from medseg_agents.evaluation.volumes.selection import make_policy_envs
from medseg_agents.policies.specs import PolicySpec
from medseg_agents.runs.machine import describe_machine
from medseg_gym.backbones import embedding_cache
from medseg_gym.cases import CaseSource, load_cases
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.parallel.compute import choose_gpu
from medseg_gym.parallel.worker import add_usage
from medseg_gym.policy import Policy, close_policy, play_or_give_up


class SplitPlayer:
    """Plays batches as if nothing had been played before.

    A batch begins with an empty embedding cache, those aside that entries of one group play one
    after another: the embeddings that another policy left of the very same images are those that
    would be made again, in one call of the encoder as well.

    Args:
        options: Cases, steps and rewards.
        device: Of the backbones.
        threads: Of torch; part of the settings.
        entries: What is played.
        number: Of the worker; where there are several GPUs it takes its own.
        specs: Policies by the text of an entry, where they are not to be made from it.
    """

    def __init__(
        self,
        options: PlayingOptions,
        device: str,
        threads: int,
        entries: Sequence[Entry],
        number: int = 0,
        specs: Mapping[str, PolicySpec] | None = None,
    ) -> None:
        self.options, self.device, self.threads = options, device, threads
        self.entries, self.number, self.specs = entries, number, specs or {}
        self._opened: dict[tuple[str, str, int], _Opened] = {}
        self._closed_usage: dict[str, float] = {}
        self._encoded: tuple[str, ...] | None = None  # keys whose images the cache holds

    def play(self, job: PlayJob) -> PlayedJob:
        """Play the parts of a job, one after another."""
        self._let_go(keep={self.entries[part.entry].group for part in job.parts})
        self._encoded = None
        settings, outcomes = [], []
        for part in job.parts:
            opened = self._open(self.entries[part.entry])
            settings.append(opened.settings | {"seed": self.entries[part.entry].seed})
            outcomes.append(self._play(opened, part, job.batch) if part.keys else [])
        return PlayedJob(tuple(settings), tuple(outcomes), opened.machine)

    @property
    def usage(self) -> dict[str, float]:
        """Return the usage of models' servers."""
        usage = dict(self._closed_usage)
        for opened in self._opened.values():
            add_usage(usage, opened.usage)
        return usage

    def close(self) -> None:
        """Let go of policies, environments and connections."""
        self._let_go(keep=set())

    @cached_property
    def _source(self) -> CaseSource:
        return load_cases(self.options.cases, self.options.split)

    def _open(self, entry: Entry) -> _Opened:
        key = entry.policy, entry.backbone, entry.group
        if key not in self._opened:
            self._opened[key] = self._load(entry)
        return self._opened[key]

    def _load(self, entry: Entry) -> _Opened:
        spec = self.specs.get(entry.policy) or policies.make(entry.policy)
        options = self.options
        envs = make_policy_envs(
            spec,
            self._source,
            num_envs=entry.slots,
            max_steps=options.max_steps,
            volume_steps=options.volume_steps,
            split=options.split,
            backbone=entry.backbone,
            checkpoint=entry.checkpoint,
            device=choose_gpu(self.device, self.number),
            reward=options.reward,
            **options.prompt_arguments(),
        )
        policy = spec.build(envs)
        settings = {
            **run_settings(envs, policy, (), entry.seed, True, options.cases),
            "device": envs.backbone.device.type,  # which GPU of several is no matter
            "threads": self.threads,
        }
        machine = describe_machine(str(envs.backbone.device))
        return _Opened(envs, policy, settings, machine, spec.plays_volumes)

    def _play(self, opened: _Opened, part: Part, batch: int) -> list[Outcome]:
        cache = embedding_cache(opened.envs.backbone)
        if opened.plays_volumes or self._encoded != part.keys:
            cache.clear()
        seed = self.entries[part.entry].seed
        (ended,) = play_or_give_up(opened.envs, opened.policy, part.keys, seed)
        whole = len(cache) == cache.counters.encodes  # none was dropped
        self._encoded = part.keys if whole else None
        outcomes = [
            outcome_of(one, opened.policy, opened.envs, part.batch_size, keep_mask=True)
            for one in ended
        ]
        return [replace(one, batch=batch) for one in outcomes]

    def _let_go(self, keep: set[int]) -> None:
        """Close what is of other groups."""
        for key in [key for key in self._opened if key[2] not in keep]:
            opened = self._opened.pop(key)
            add_usage(self._closed_usage, opened.usage)
            close_policy(opened.policy)
            opened.envs.close()


@dataclass
class _Opened:
    envs: CoreVectorEnv
    policy: Policy
    settings: dict[str, Any]
    machine: str
    plays_volumes: bool

    @property
    def usage(self) -> dict[str, float]:
        usage = getattr(self.policy, "usage", None)
        return asdict(usage) if is_dataclass(usage) and not isinstance(usage, type) else {}
