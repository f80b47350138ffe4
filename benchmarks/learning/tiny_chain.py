"""From nothing to a vision-language policy: experts, supervised fine-tuning, table, on a CPU.

    python -m benchmarks.learning.tiny_chain --out runs/tiny

Needs no network and no files. Eight stages, each of which goes on where it was when the same
command is given again:

1. `hybrid` experts play training cases with the segmenter; kept as a trajectory store.
2. Their episodes are exported as conversations, as `MedSegChat-v0` shows them.
3. First turns: one image with several questions, answered as a box expert begins.
4. With `vision_steps`: the vision tower alone learns where all targets of those images are.
5. With `reading_steps`: on 3 the language model learns to look where the tower found a target.
6. Supervised fine-tuning of that model, or of one that knows nothing, on 3, at a steady rate.
7. The same on 2 and 3 mixed, the rate falling to its end.
8. A table over held-out cases: the model greedy and sampled, the same shown other cases' images,
   baselines (the median box of each target among them) and oracles; with the share of valid calls
   and the IoU of the first box.

All cases are synthetic (`phantoms:abdomen`); training takes the train split, the table the test
split.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.learning.chain_drawings import take_drawings
from benchmarks.learning.chain_sizes import Chain
from benchmarks.shared.sizes import claim, read_settings
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write


class Stages:
    """Runs stages and keeps what each took, over all the runs that it needed.

    Args:
        out: Folder of the chain.
        console: To say what happens.
    """

    def __init__(self, out: Path, console: Console) -> None:
        self.file = out / "stages.json"
        self.console = console
        self.taken: dict[str, dict[str, float]] = {}
        if self.file.exists():
            self.taken = json.loads(self.file.read_text(encoding="utf-8"))

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Do the work of a stage and add up its time."""
        self.console.rule(name)
        wall, cpu = time.perf_counter(), _cpu_seconds()
        try:
            work()
        finally:
            took = self.taken.setdefault(name, {"wall_minutes": 0.0, "cpu_minutes": 0.0})
            took["wall_minutes"] += (time.perf_counter() - wall) / 60
            took["cpu_minutes"] += (_cpu_seconds() - cpu) / 60
            atomic_write(self.file, json.dumps(self.taken, indent=1))


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run_chain(
    out: Annotated[Path, typer.Option(help="Folder of everything; goes on if it is there.")] = Path(
        "runs/tiny"
    ),
    workers: Annotated[int, typer.Option(help="Processes that draw cases and play experts.")] = 2,
    threads: Annotated[int, typer.Option(help="Torch threads of training and table.")] = 2,
    settings: Annotated[
        str, typer.Option(help="Other sizes than the defaults, as experts=64,first_steps=20.")
    ] = "",
) -> None:
    """Run all stages that are not done yet."""
    from benchmarks.learning.tiny_table import make_table

    run_stages(read_settings(Chain, settings), out, workers, threads, make_table)


def run_stages(
    chain: Chain, out: Path, workers: int, threads: int, make_table: Callable[..., None]
) -> None:
    """Run all stages that are not done yet.

    Args:
        chain: Sizes of the stages.
        out: Folder of everything.
        workers: Processes that draw cases and play experts.
        threads: Torch threads of training and table.
        make_table: Plays the table, `make_table(chain, out, minutes of each stage, console)`.
    """
    if chain.reading_steps and not (chain.vision_steps and chain.coordinates == "pixel"):
        raise MedSegError(
            "reading_steps needs vision_steps, which make a tower that sees, and "
            "coordinates=pixel, with which a number is one token"
        )
    _check_coarse_size(chain)
    console = make_console()
    claim(out / "chain.json", chain)
    torch.set_num_threads(threads)
    stages = Stages(out, console)
    stages.run("experts", lambda: play_experts(chain, out, workers))
    stages.run("export", lambda: export_experts(chain, out))
    if chain.drawings:
        take_drawings(chain, out)
    stages.run("first turns", lambda: draw_first_turns(chain, out, workers))
    if chain.vision_steps:
        from benchmarks.learning.vision.stages import train_to_read, train_vision

        stages.run("vision", lambda: train_vision(chain, out, workers))
        if chain.reading_steps:
            stages.run("reading", lambda: train_to_read(chain, out, workers))
    if chain.first_steps:
        stages.run("first fine-tuning", lambda: first_tuning(chain, out))
    stages.run("mixed fine-tuning", lambda: mixed_tuning(chain, out))
    stages.run("table", lambda: make_table(chain, out, stages.taken, console))


def _check_coarse_size(chain: Chain) -> None:
    from medseg_agents.llm.tiny_model import TinyConfig

    token = 2 * TinyConfig().patch  # pixels along a side of what an image token shows
    if chain.coarse_size and (
        chain.coarse_size % token or not 2 * token <= chain.coarse_size <= chain.image_size
    ):
        raise MedSegError(
            f"coarse_size must be a multiple of {token} from {2 * token} to image_size="
            f"{chain.image_size}, or 0 for none, got {chain.coarse_size}"
        )


# the stages -----------------------------------------------------------------------------------
def play_experts(chain: Chain, out: Path, workers: int) -> None:
    """Stage 1."""
    from medseg_gym.trajectories.recording.generate import GenerateOptions, generate_episodes

    options = GenerateOptions(
        env=chain.env,
        cases=chain.cases,
        split="train",
        annotator=chain.annotator,
        backbone=chain.backbone,
        num_envs=chain.num_envs,
        workers=workers,
        limit=chain.experts,
        seed=chain.seed,
        max_steps=chain.max_steps,
    )
    generate_episodes(out / "experts", options)


def export_experts(chain: Chain, out: Path) -> None:
    """Stage 2."""
    from medseg_gym.trajectories import TrajectoryStore
    from medseg_gym.trajectories.export.export import export_store

    file = out / "conversations" / "episodes.parquet"
    if not file.exists():
        export_store(TrajectoryStore(out / "experts"), file, chat=chain.chat)


def draw_first_turns(chain: Chain, out: Path, workers: int) -> None:
    """Stage 3, a file at a time."""
    start = -(-chain.experts // chain.per_image)
    jobs = []
    for number, first in enumerate(range(start, start + chain.images, chain.shard)):
        file = out / "first_turns" / f"{number:03d}.parquet"
        if not file.exists():
            last = min(first + chain.shard, start + chain.images)
            jobs.append((file, chain, first, last))
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with context.Pool(min(workers, len(jobs))) as pool:
        pool.starmap(_draw, jobs)
        pool.close()
        pool.join()  # so that their time counts


def _draw(file: Path, chain: Chain, first: int, last: int) -> None:
    from medseg_agents.llm.first_turns import write_first_turns

    torch.set_num_threads(1)
    images = range(first, last)
    write_first_turns(
        file,
        chain.cases,
        images,
        chain.chat,
        per_image=chain.per_image,
        questions=chain.questions,
    )


def first_tuning(chain: Chain, out: Path) -> None:
    """Stage 6."""
    model = _so_far(chain, out) or "tiny"
    _tune(chain, out / "first", model, (out / "first_turns",), chain.first_steps, "constant")


def mixed_tuning(chain: Chain, out: Path) -> None:
    """Stage 7."""
    sources = (out / "conversations", out / "first_turns" / "000.parquet")
    model = out / "first" / "model" if chain.first_steps else _so_far(chain, out) or "tiny"
    _tune(chain, out / "sft", model, sources, chain.mixed_steps, "cosine")


def _so_far(chain: Chain, out: Path) -> Path | None:
    """Folder of the model that stages 4 and 5 made; None without them."""
    if not chain.vision_steps:
        return None
    from benchmarks.learning.vision.stages import tower_of

    return out / "reading" / "model" if chain.reading_steps else tower_of(chain, out)


def _tune(
    chain: Chain, run: Path, model: str | Path, sources: Sequence[Path], steps: int, schedule: str
) -> None:
    from medseg_agents.sft.config import SftConfig
    from medseg_agents.sft.train import train_sft

    config = SftConfig(
        model=str(model),
        trajectories=tuple(map(str, sources)),
        steps=steps,
        batch_size=chain.batch,
        optimiser="muon",
        lr=chain.lr,
        muon_lr=chain.muon_lr,
        schedule=schedule,
        log_every=min(20, max(1, steps // 2)),
        save_every=100,
        loader_workers=1,
        seed=chain.seed,
    )
    train_sft(config, run, resume=True)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(run_chain)
