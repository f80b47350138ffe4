"""A policy on a whole data set: in several processes or on several GPUs, resumable, exact.

Cases go in batches of `num_envs`, always the same ones together, and idle workers are dealt one
batch after another. A batch begins with an empty embedding cache and is computed with the same
number of threads everywhere, so its numbers depend neither on who played it nor on what was played
before. Only the parent process writes, one batch at a time, so a run killed at any moment goes on
where it was, with as many workers as one likes.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from medseg_agents import policies
from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_agents.evaluation.evaluate import Outcome, RecordFile, outcome_of, run_settings
from medseg_agents.evaluation.failed_cases import FailedCase, FailureLimit
from medseg_agents.evaluation.options import EvalOptions
from medseg_agents.evaluation.volumes.mask_files import MaskFolder, mask_folder
from medseg_agents.evaluation.volumes.records import ScoredVolumes
from medseg_agents.evaluation.volumes.scores import VolumeScorer
from medseg_agents.evaluation.volumes.selection import make_policy_envs, select, slots
from medseg_agents.runs.folder import RunFolder
from medseg_gym.backbones import embedding_cache
from medseg_gym.cases import load_cases, played_split, split_note
from medseg_gym.errors import MedSegError
from medseg_gym.own_code import OwnCodeError, explain_own
from medseg_gym.policy import close_policy, play_or_give_up

Job = tuple[int, list[str]]
"""Number of a batch, and the keys of it that are to be played: all, or those that failed before."""


@dataclass(frozen=True)
class Evaluated:
    """Result of a run.

    Args:
        records: One per case or volume that was played, in order.
        settings: That decide the numbers.
        usage: What this call asked of a model's server, summed over the workers; empty if nothing.
        failed: The other cases, in order; the same call plays them again.
        volumes: Scores of the volumes, where the cases are slices or volumes.
        masks: Folder of the masks, where they were to be written.
        note: What must be known of the split; "" for nothing.
    """

    records: list[EpisodeRecord]
    settings: dict[str, Any]
    usage: dict[str, float]
    failed: list[FailedCase]
    volumes: ScoredVolumes
    masks: MaskFolder | None = None
    note: str = ""


def run_evaluation(
    options: EvalOptions,
    out: str | Path,
    on_start: Callable[[int], None] | None = None,
    on_batch: Callable[[Sequence[Outcome]], None] | None = None,
) -> Evaluated:
    """Play every case once, those aside that `out/records.jsonl` holds as played already.

    Args:
        options: What is evaluated.
        out: Folder of the run.
        on_start: Called with the number of cases.
        on_batch: Called with the outcomes of every batch, the records found on the disk first.

    Raises:
        MedSegError: Cases, policy or backbone cannot be used, the folder holds another run, a
            worker died, or `options.max_failures` cases failed.
    """
    source = load_cases(options.cases, options.split)
    options = replace(options, split=played_split(source, options.split))
    spec = policies.make(options.policy)
    selection = select(source, [spec], options.limit)
    keys = selection.keys_of(spec)
    if not keys:
        raise MedSegError(f"{options.cases!r} has no case in split {options.split!r}")
    if on_start:
        on_start(len(keys))
    folder = mask_folder(options, Path(out) / "masks")
    scorer = VolumeScorer(selection, folder)

    def score(batch: Sequence[Outcome]) -> None:
        scorer.add(batch)
        if on_batch is not None:
            on_batch(batch)

    size = slots(spec, keys, options.num_envs, options.volume_envs)
    batches = -(-len(keys) // size)
    run = _Run(options, keys, size, Path(out), score)
    if min(options.workers, batches) == 1:
        run.alone()
    else:
        run.dealt(min(options.workers, batches))
    assert run.file is not None
    order = {key: number for number, key in enumerate(keys)}
    records = sorted(run.file.records, key=lambda record: order[record.case])
    failed = sorted(run.file.failed, key=lambda one: order[one.case])
    if folder is not None:
        folder.close()
    note = split_note(source)
    return Evaluated(records, run.settings, run.usage, failed, scorer.result(), folder, note)


class _Run:
    """The parent's side."""

    def __init__(
        self,
        options: EvalOptions,
        keys: list[str],
        size: int,
        out: Path,
        on_batch: Callable[[Sequence[Outcome]], None],
    ) -> None:
        self.options, self.keys, self.size = options, keys, size
        self.out, self.on_batch = out, on_batch
        self.file: RecordFile | None = None
        self.settings: dict[str, Any] = {}
        self.usage: dict[str, float] = {}
        self._left: list[Job] = []
        self._limit = FailureLimit(options.max_failures)

    def ready(self, settings: dict[str, Any]) -> None:
        """A worker says what decides its numbers: the first opens the file, the others agree."""
        if self.file is None:
            self.settings = settings
            run = RunFolder(self.out)
            self.file = RecordFile(run.records_file, settings)
            run.write_config(self.options)
            if self.file.records:
                self.on_batch(self.file.records)
            size, played = self.size, self.file.played
            batches = [self.keys[at : at + size] for at in range(0, len(self.keys), size)]
            jobs = [(b, [k for k in keys if k not in played]) for b, keys in enumerate(batches)]
            self._left = [job for job in jobs if job[1]][::-1]
        elif settings != self.settings:
            differ = [name for name in settings if settings[name] != self.settings.get(name)]
            raise MedSegError(f"workers disagree on {', '.join(differ)}: is a file changing?")

    def next_job(self) -> Job | None:
        return self._left.pop() if self._left else None

    def keep(self, outcomes: Sequence[Outcome]) -> None:
        assert self.file is not None
        self.file.append(outcomes)
        self.on_batch(outcomes)
        self._limit.add(outcomes)

    def add_usage(self, usage: dict[str, float]) -> None:
        for name, value in usage.items():
            self.usage[name] = self.usage.get(name, 0) + value

    def alone(self) -> None:
        with torch_threads(self.options.threads):
            player = _Player(self.options, self.keys, self.size, 0)
            try:
                self.ready(player.settings)
                while (job := self.next_job()) is not None:
                    self.keep(player.play(*job))
                self.add_usage(player.usage)
            finally:
                player.close()

    def dealt(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        workers: dict[Connection, Any] = {}
        try:
            for number in range(count):
                ours, theirs = context.Pipe()
                task = (self.options, self.keys, self.size, number, theirs)
                process = context.Process(target=_work, args=task, daemon=True)
                process.start()
                theirs.close()
                workers[ours] = process
            waiting = list(workers)
            while waiting:
                for end in wait(waiting):
                    assert isinstance(end, Connection)
                    try:
                        if self.answer(end):
                            waiting.remove(end)
                    except (EOFError, ConnectionError):
                        workers[end].join()
                        raise MedSegError(
                            f"a worker died with exit code {workers[end].exitcode}; what was "
                            "played is kept, and the same command goes on where it was"
                        ) from None
        finally:
            for end, process in workers.items():
                process.terminate()
                process.join()
                end.close()

    def answer(self, end: Connection) -> bool:
        """Take what a worker says and deal it a batch; True if it was its last word."""
        kind, value = end.recv()
        if kind == "error":
            raise value
        if kind == "usage":
            self.add_usage(value)
            return True
        if kind == "ready":
            self.ready(value)
        end.send(self.next_job())
        if kind == "outcomes":  # the worker plays on while volumes are scored and masks written
            self.keep(value)
        return False


class _Player:
    """Policy, cases and backbone of one worker."""

    def __init__(self, options: EvalOptions, keys: list[str], size: int, number: int) -> None:
        self.options, self.keys = options, keys
        policy_spec = policies.make(options.policy)
        source = load_cases(options.cases, options.split)
        self.envs = make_policy_envs(
            policy_spec,
            source,
            num_envs=size,
            max_steps=options.max_steps,
            volume_steps=options.volume_steps,
            split=options.split,
            backbone=options.backbone,
            checkpoint=options.checkpoint,
            device=_device(options.device, number),
            reward=options.reward,
        )
        self.policy = policy_spec.build(self.envs)
        self.settings = {
            **run_settings(self.envs, self.policy, keys, options.seed, True, options.cases),
            "device": self.envs.backbone.device.type,  # which GPU of several is no matter
            "threads": options.threads,
        }

    def play(self, batch: int, keys: list[str]) -> list[Outcome]:
        """Play a batch, or what failed of it, as if nothing had been played before."""
        embedding_cache(self.envs.backbone).clear()
        size = self.envs.num_envs
        whole = len(self.keys[batch * size : (batch + 1) * size])
        (ended,) = play_or_give_up(self.envs, self.policy, keys, self.options.seed)
        outcomes = [outcome_of(one, self.policy, self.envs, whole, keep_mask=True) for one in ended]
        return [replace(one, batch=batch) for one in outcomes]

    @property
    def usage(self) -> dict[str, float]:
        """Return the usage of a model's server."""
        usage = getattr(self.policy, "usage", None)
        return asdict(usage) if is_dataclass(usage) and not isinstance(usage, type) else {}

    def close(self) -> None:
        """Let go of connections."""
        close_policy(self.policy)
        self.envs.close()


def _device(device: str, number: int) -> str:
    """Worker i takes GPU i where it may choose."""
    import torch

    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    index = number % torch.cuda.device_count()
    torch.cuda.set_device(index)  # so that the policy's model goes there too
    return f"cuda:{index}"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sendable(error: Exception) -> Exception:
    """Return an error that can be sent; a traceback cannot, so the user's part becomes text."""
    explained = "" if isinstance(error, MedSegError) else explain_own(error)
    if explained:
        return OwnCodeError(explained)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a library, with arguments of its own
        return MedSegError(f"{type(error).__name__}: {error}")
    return error


def _work(
    options: EvalOptions, keys: list[str], size: int, number: int, connection: Connection
) -> None:
    """The main function of a worker: says "ready", is dealt batches, gives records back."""
    player = None
    try:
        with torch_threads(options.threads):
            player = _Player(options, keys, size, number)
            connection.send(("ready", player.settings))
            while (job := connection.recv()) is not None:
                connection.send(("outcomes", player.play(*job)))
            connection.send(("usage", player.usage))
    except (BrokenPipeError, EOFError):
        pass  # the parent is gone, and whatever it wrote is safe
    except Exception as error:
        connection.send(("error", _sendable(error)))
    finally:
        if player is not None:
            player.close()
        connection.close()
