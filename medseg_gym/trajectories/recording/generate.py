"""Fill a store with a policy's episodes: in parallel, resumable, the same however it is cut up.

Cases go in batches of `num_envs`, always the same ones together, and every episode's randomness
comes from (seed, case, rollout) alone. So an episode is the same whichever worker plays it and
however often the run was killed: a batch of which anything is missing is played again, and what the
store has of it already is not recorded twice.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from medseg_gym import annotators
from medseg_gym.episodes import Episode
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.options import GenerateOptions
from medseg_gym.trajectories.recording.provenance import shared_facts
from medseg_gym.trajectories.recording.recorder import VectorRecorder
from medseg_gym.trajectories.store.folder import make_folder
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.recovery import recover
from medseg_gym.trajectories.store.writer import TrajectoryWriter
from medseg_gym.trajectories.trajectory import EpisodeKey

_SETTINGS = ("cases", "split", "policy", "backbone", "checkpoint", "checkpoint_hash", "options")

Jobs = dict[int, list[int]]  # rollout -> numbers of batches


def generate_episodes(
    path: str | Path,
    options: GenerateOptions,
    on_start: Callable[[int, int], None] | None = None,
    on_episodes: Callable[[int], None] | None = None,
) -> TrajectoryStore:
    """Play what is not in the store yet.

    Args:
        path: Folder of the store; made if it is not there.
        options: What is played.
        on_start: Called with the number of episodes wanted and that found in the store.
        on_episodes: Called with the number of new episodes, batch by batch.

    Returns:
        The store.

    Raises:
        TrajectoryError: The store holds these keys from a run with other settings, or a worker
            died.
        MedSegError: Cases, annotator or backbone cannot be used.
    """
    path = Path(path)
    keys = options.keys()
    make_folder(path)
    recover(path)
    store = TrajectoryStore(path)
    known = {key for key in store.keys() if key.seed == options.seed}
    wanted = [EpisodeKey(case, options.seed, r) for r in range(options.rollouts) for case in keys]
    if on_start:
        on_start(len(wanted), sum(key in known for key in wanted))
    report = on_episodes or (lambda count: None)
    pending = [
        (rollout, batch)
        for rollout in range(options.rollouts)
        for batch, start in enumerate(range(0, len(keys), options.num_envs))
        if not all(
            EpisodeKey(case, options.seed, rollout) in known
            for case in keys[start : start + options.num_envs]
        )
    ]
    shares = [pending[number :: options.workers] for number in range(options.workers)]
    tasks = [
        _Task(path, options, keys, _by_rollout(share), known, _settings_in(store, set(wanted)))
        for share in shares
        if share
    ]
    if len(tasks) > 1:
        _play_in_workers(tasks, report)
    else:  # with nothing to play, the settings are still compared
        idle = _Task(path, options, keys, {}, known, _settings_in(store, set(wanted)))
        _play(tasks[0] if tasks else idle, report)
    return TrajectoryStore(path)


@dataclass(frozen=True)
class _Task:
    """Share of one worker; it is pickled."""

    path: Path
    options: GenerateOptions
    keys: list[str]
    jobs: Jobs
    known: set[EpisodeKey]
    settings: set[tuple[Any, ...]]


def _by_rollout(share: list[tuple[int, int]]) -> Jobs:
    jobs: Jobs = {}
    for rollout, batch in share:
        jobs.setdefault(rollout, []).append(batch)
    return jobs


def _settings_in(store: TrajectoryStore, wanted: set[EpisodeKey]) -> set[tuple[Any, ...]]:
    table = store.to_table(["case", "seed", "rollout", *_SETTINGS])
    columns = [table[name].to_pylist() for name in table.column_names]
    return {row[3:] for row in zip(*columns, strict=True) if EpisodeKey(*row[:3]) in wanted}


def rollout_seed(seed: int, rollout: int) -> int:
    """The seed of a rollout; the first one has that of the run."""
    if rollout == 0:
        return seed
    digest = blake2b(f"{seed}/{rollout}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _play(task: _Task, report: Callable[[int], None]) -> None:
    options = task.options
    envs = make_envs(
        options.num_envs,
        options.env,
        cases=options.cases,
        split=options.split,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        device=options.device,
        max_steps=options.max_steps,
        reward=options.reward,
    )
    policy = annotators.make(options.annotator, envs.codec)
    facts = shared_facts(envs.core, policy)
    facts["options"] = json.dumps(facts["options"], sort_keys=True)
    mine = tuple(facts[name] for name in _SETTINGS)
    for other in task.settings - {mine}:
        differs = [name for name, a, b in zip(_SETTINGS, mine, other, strict=True) if a != b]
        raise TrajectoryError(
            f"{task.path} holds these episodes from a run with other settings (differs: "
            f"{', '.join(differs)}); give another folder or another seed"
        )
    recorded = set(task.known)
    rollout = 0

    def key_of(episode: Episode) -> EpisodeKey | None:
        # A slot that fills up a short batch repeats a case: the first slot with it is the real one.
        key = EpisodeKey(episode.case.key, options.seed, rollout)
        if key in recorded:
            return None
        recorded.add(key)
        return key

    with TrajectoryWriter(task.path) as writer:
        recorder = VectorRecorder(envs, writer, policy=policy, key_of=key_of)
        batches = range(-(-len(task.keys) // options.num_envs))
        for rollout, mine_now in task.jobs.items():
            skipped = frozenset(batches) - frozenset(mine_now)
            seed = rollout_seed(options.seed, rollout)
            before = len(recorded)
            for _ in play_cases(recorder, policy, task.keys, seed, skipped):  # type: ignore[arg-type]
                report(len(recorded) - before)
                before = len(recorded)
        recorder.close()


def _work(task: _Task, threads: int, connection: Connection) -> None:
    """The main function of a worker."""
    import torch

    torch.set_num_threads(threads)
    try:
        _play(task, connection.send)
    except BrokenPipeError:
        pass  # the parent is gone, and whatever was recorded is safe
    except Exception as error:
        connection.send(error)
    finally:
        connection.close()


def _play_in_workers(tasks: list[_Task], report: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    threads = max(1, (os.cpu_count() or 1) // len(tasks))
    workers = {}
    try:
        for task in tasks:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(task, threads, theirs), daemon=True)
            process.start()
            theirs.close()
            workers[ours] = process
        open_ends = list(workers)
        while open_ends:
            for end in wait(open_ends):
                assert isinstance(end, Connection)
                try:
                    message = end.recv()
                except EOFError:
                    open_ends.remove(end)
                    workers[end].join()
                    code = workers[end].exitcode
                    if code:
                        raise TrajectoryError(
                            f"a worker died with exit code {code}; nothing recorded is lost, and "
                            "the same command goes on where it was"
                        ) from None
                    continue
                if isinstance(message, Exception):
                    raise message
                report(message)
    finally:
        for end, process in workers.items():
            process.terminate()
            process.join()
            end.close()
