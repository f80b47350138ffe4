"""Recorders: wrappers that write every step of an environment into a store."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorWrapper

import medseg_gym
from medseg_gym.backbones import available
from medseg_gym.backbones.registry import find_checkpoint
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.stage import Stage
from medseg_gym.episodes import Episode, MaskState
from medseg_gym.episodes.masks import group_by_shape
from medseg_gym.errors import BackboneError
from medseg_gym.policy import Policy
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.mask_codec import pack_mask
from medseg_gym.trajectories.store import TrajectoryStore
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, RecordedStep
from medseg_gym.trajectories.writer import TrajectoryWriter

KeyOf = Callable[[Episode], EpisodeKey | None]

_COMMON = {"dice", "iou", "case", "tool", "valid", "error", "stopped"}  # info that has a column
_OPTIONS = ("max_steps", "prompt_memory", "mask_input", "multimask", "bins", "image_size")


class Recorder(gym.Wrapper):
    """Records a single `MedSeg-v0`.

    Put it outside of wrappers that change rewards or cut episodes off, if their doing is to be
    recorded. Recording changes nothing that the environment returns.

    Args:
        env: `gym.make("MedSeg-v0", ...)`.
        store: Folder of the store, or a writer (which then stays open).
        seed: Part of the episodes' keys. None draws one, so that keys of several recorders never
            meet; give one to find the episodes again. It seeds nothing.
        policy: Who acts: a name, or the Policy itself. A policy that has a method
            `accepts(episode)` judges each finished episode; the verdict is kept as `accepted`.
        key_of: Gives the key of an episode when it begins, or None to leave it out. By default
            the rollout index counts the episodes with this case and seed.
        fsync: See `TrajectoryWriter`.
    """

    def __init__(
        self,
        env: gym.Env,
        store: str | Path | TrajectoryWriter,
        seed: int | None = None,
        policy: str | Policy = "",
        key_of: KeyOf | None = None,
        fsync: bool = False,
    ) -> None:
        super().__init__(env)
        self.log = _Log(_stage_of(env), store, seed, policy, key_of, fsync)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a running one is kept as unfinished."""
        result = self.env.reset(seed=seed, options=options)
        self.log.leave([0])
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one action and record it."""
        before = self.log.episodes()
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.log.record(before, [reward], [terminated], [truncated], lambda slot: info)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment and, unless it was given, the writer."""
        self.log.close()
        super().close()


class VectorRecorder(VectorWrapper):
    """Records a vector `MedSeg-v0` in any autoreset mode.

    Args:
        env: `gym.make_vec("MedSeg-v0", ...)` or `medseg_gym.policy.make_envs(...)`.
        store: See `Recorder`, as for the others.
        seed: Likewise.
        policy: Likewise.
        key_of: Likewise; called in the order of slots.
        fsync: Likewise.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        store: str | Path | TrajectoryWriter,
        seed: int | None = None,
        policy: str | Policy = "",
        key_of: KeyOf | None = None,
        fsync: bool = False,
    ) -> None:
        super().__init__(env)
        self.log = _Log(_stage_of(env), store, seed, policy, key_of, fsync)

    @property
    def stage(self) -> Stage:
        """Of the environment, so that `play_cases` takes a recorder as well."""
        return self.log.stage

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes; running ones that are replaced are kept as unfinished."""
        before = self.log.episodes()
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        now = self.log.episodes()
        self.log.leave([i for i in range(len(now)) if now[i][0] is not before[i][0]])
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action in every slot and record it."""
        before = self.log.episodes()
        stepped = self.env.step(actions)
        _, rewards, terminations, truncations, infos = stepped
        self.log.record(
            before, rewards, terminations, truncations, lambda slot: _info_of(infos, slot)
        )
        return stepped

    def close(self, **kwargs: Any) -> None:
        """Close the environment and, unless it was given, the writer."""
        self.log.close()
        super().close(**kwargs)


def _stage_of(env: gym.Env | gym.vector.VectorEnv) -> Stage:
    stage = getattr(env.unwrapped, "stage", None)
    if not isinstance(stage, Stage):
        raise TrajectoryError(f"only MedSeg environments can be recorded, not {env.unwrapped!r}")
    return stage


def _info_of(infos: dict[str, Any], slot: int) -> dict[str, Any]:
    """The scalars of the step that was taken, out of a vector environment's infos."""
    final = infos.get("final_info")
    if final is not None and infos["_final_info"][slot]:
        infos = final
    return {k: v[slot] for k, v in infos.items() if f"_{k}" in infos and infos[f"_{k}"][slot]}


class _Running:
    """The recording of the episode in a slot; without an id it is left out."""

    def __init__(self, episode: Episode, id: str | None) -> None:
        self.episode, self.id = episode, id
        self.state: MaskState | None = None
        self.mask = b""


class _Log:
    """What both recorders share: which episode is in which slot, and the writer."""

    def __init__(
        self,
        stage: Stage,
        store: str | Path | TrajectoryWriter,
        seed: int | None,
        policy: str | Policy,
        key_of: KeyOf | None,
        fsync: bool,
    ) -> None:
        self.stage = stage
        self.accepts: Callable[[Episode], bool] | None = getattr(policy, "accepts", None)
        self.seed = secrets.randbits(62) if seed is None else int(seed)
        self._owned = not isinstance(store, TrajectoryWriter)
        self.writer = (
            store if isinstance(store, TrajectoryWriter) else TrajectoryWriter(store, fsync=fsync)
        )
        self._counts: Counter[str] = Counter()
        if key_of is None and seed is not None:
            known = [k for k in TrajectoryStore(self.writer.path).keys() if k.seed == self.seed]
            for key in known:
                self._counts[key.case] = max(self._counts[key.case], key.rollout + 1)
        self._key_of = key_of or self._next_key
        self._facts = shared_facts(stage, policy)
        self._running: dict[int, _Running] = {}

    def _next_key(self, episode: Episode) -> EpisodeKey:
        case = episode.case.key
        self._counts[case] += 1
        return EpisodeKey(case, self.seed, self._counts[case] - 1)

    def episodes(self) -> list[tuple[Episode | None, int]]:
        """The episode in every slot now and the steps it has taken."""
        return [(e, len(e.steps) if e else 0) for e in self.stage.engine.episodes]

    def leave(self, slots: Sequence[int]) -> None:
        """The episodes in these slots go no further."""
        for slot in slots:
            running = self._running.pop(slot, None)
            if running and running.id:
                self.writer.abandon(running.id)

    def record(
        self,
        before: Sequence[tuple[Episode | None, int]],
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
            if taken == 0:
                self.leave([slot])
                self._running[slot] = self._begin(episode)
            running = self._running.get(slot)
            if running is not None and running.id is not None:
                stepped.append((slot, running))
        self._pack([running for _, running in stepped])
        rows, verdicts = [], []
        for slot, running in stepped:
            episode, id = running.episode, running.id
            assert id is not None
            step = episode.steps[-1]
            row = RecordedStep(
                prompt=step.prompt,
                valid=step.valid,
                error=step.error,
                reward=float(rewards[slot]),
                terms=_terms(info_of(slot)),
                dice=step.dice,
                iou=step.iou,
                mask=running.mask,
                stopped=step.effect == "stop",
                terminated=bool(terminations[slot]),
                truncated=bool(truncations[slot]),
            )
            rows.append((id, row))
            verdicts.append(
                bool(self.accepts(episode)) if row.ended and self.accepts is not None else None
            )
            if row.ended:
                running.id = None  # it may idle in its slot from now on
        if rows:
            self.writer.add(rows, verdicts)

    def _begin(self, episode: Episode) -> _Running:
        key = self._key_of(episode)
        if key is None:
            return _Running(episode, None)
        case = episode.case
        facts = EpisodeFacts(
            key=key,
            group=case.group,
            target=case.target,
            modality=case.modality,
            synthetic=case.synthetic,
            height=case.height,
            width=case.width,
            image_hash=case.content_hash,
            truth=pack_mask(case.mask),
            **self._facts,
        )
        return _Running(episode, self.writer.begin(facts))

    def _pack(self, running: Sequence[_Running]) -> None:
        """Pack the masks that are new, with one transfer per distinct size."""
        changed = [one for one in running if one.episode.state is not one.state]
        masks = [one.episode.state.mask for one in changed]
        for members in group_by_shape(masks):
            stacked = torch.stack([masks[i] for i in members]).cpu().numpy()
            for i, mask in zip(members, stacked, strict=True):
                changed[i].mask, changed[i].state = pack_mask(mask), changed[i].episode.state

    def close(self) -> None:
        """Keep running episodes as unfinished; close the writer if it is ours."""
        self.leave(list(self._running))
        if self._owned:
            self.writer.close()


def _terms(info: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in info.items()
        if name not in _COMMON and isinstance(value, (bool, int, float, np.number, np.bool_))
    }


def shared_facts(stage: Stage, policy: str | Policy) -> dict[str, Any]:
    """The facts that all episodes of a recorder share: where, who and with which options."""
    options = stage.options
    checkpoint = _checkpoint(options)
    return {
        "cases": options.cases if isinstance(options.cases, str) else None,
        "split": options.split,
        "source": stage.source.name,
        "policy": policy if isinstance(policy, str) else policy.name,
        "sees_truth": None if isinstance(policy, str) else policy.sees_truth,
        "backbone": stage.backbone.name,
        "checkpoint": checkpoint and checkpoint.name,
        "checkpoint_hash": checkpoint and _hash_file(checkpoint, checkpoint.stat().st_mtime_ns),
        "options": {
            **{name: getattr(options, name) for name in _OPTIONS},
            "medseg_gym": medseg_gym.__version__,
            "trained_kinds": sorted(stage.backbone.trained_kinds),
            "tools": list(stage.view.codec.tools),
            "reward": options.reward if isinstance(options.reward, str) else repr(options.reward),
            "backbone_options": {
                name: value if isinstance(value, (str, int, float, type(None))) else repr(value)
                for name, value in (options.backbone_options or {}).items()
            },
        },
    }


def _checkpoint(options: EnvOptions) -> Path | None:
    name = options.backbone
    if not isinstance(name, str) or name not in available():
        return None if options.checkpoint is None else Path(options.checkpoint)
    random_weights = (options.backbone_options or {}).get("random_weights", False)
    try:
        return find_checkpoint(available()[name], options.checkpoint, random_weights)
    except BackboneError:
        return None


@lru_cache(maxsize=32)
def _hash_file(path: Path, changed: int) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
