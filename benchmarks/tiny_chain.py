"""From nothing to a vision-language policy: experts, supervised fine-tuning, table, on a CPU.

    python -m benchmarks.tiny_chain --out runs/tiny

Needs no network and no files. Six stages, each of which goes on where it was when the same command
is given again:

1. `hybrid` experts play training cases with the segmenter; kept as a trajectory store.
2. Their episodes are exported as conversations, as `MedSegChat-v0` shows them.
3. First turns: one picture with several questions, answered as a box expert begins.
4. Supervised fine-tuning of a tiny model that knows nothing on 3, at a steady rate.
5. The same on 2 and 3 mixed, the rate falling to its end.
6. A table over held-out cases: the model greedy and sampled, the same shown other cases' pictures,
   baselines (the median box of each target among them) and oracles; with the share of valid calls
   and the IoU of the first box.

All cases are synthetic (`phantoms:abdomen`); training takes the train split, the table the test
split.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from agents.contenders import Contender, make_contender
from agents.statistics import bootstrap_interval
from benchmarks.usual_box import usual_box
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.errors import MedSegError

SHARD = 2000  # pictures of a file of first turns


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Sizes of the stages.

    Args:
        cases: Case spec; four consecutive cases share a picture.
        image_size: Side of the picture that the model sees.
        experts: Training cases that experts play.
        annotator: Who plays them.
        pictures: Pictures of stage 3; they follow those of stage 1.
        first_steps: Optimiser steps of stage 4.
        mixed_steps: Optimiser steps of stage 5.
        batch: Conversations a step.
        lr: Of AdamW.
        muon_lr: Of Muon.
        max_steps: Calls of an episode.
        test: Held-out cases of the table.
        num_envs: Slots, in stages 1 and 6.
        backbone: Who segments.
        seed: Of weights, order and experts.
    """

    cases: str = "phantoms:abdomen"
    image_size: int = 96
    experts: int = 2400
    annotator: str = "hybrid:boxes=0.75"
    pictures: int = 10000
    first_steps: int = 2400
    mixed_steps: int = 900
    batch: int = 8
    lr: float = 2e-3
    muon_lr: float = 0.02
    max_steps: int = 5
    test: int = 1024
    num_envs: int = 64
    backbone: str = "pocket"
    seed: int = 0

    @property
    def chat(self) -> ChatOptions:
        """How the model is shown the environment."""
        return ChatOptions(image_size=self.image_size, texts="terse", max_steps=self.max_steps)


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
            self.taken = json.loads(self.file.read_text())

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
            self.file.write_text(json.dumps(self.taken, indent=1))


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
    chain = _read_settings(settings)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    _claim(out, chain)
    torch.set_num_threads(threads)
    stages = Stages(out, console)
    stages.run("experts", lambda: play_experts(chain, out, workers))
    stages.run("export", lambda: export_experts(chain, out))
    stages.run("first turns", lambda: draw_first_turns(chain, out, workers))
    stages.run("first fine-tuning", lambda: first_tuning(chain, out))
    stages.run("mixed fine-tuning", lambda: mixed_tuning(chain, out))
    stages.run("table", lambda: make_table(chain, out, stages, console))


# the stages -----------------------------------------------------------------------------------
def play_experts(chain: Chain, out: Path, workers: int) -> None:
    """Stage 1."""
    from medseg_gym.trajectories.generate import GenerateOptions, generate_episodes

    options = GenerateOptions(
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
    from medseg_gym.trajectories.export import export_store

    file = out / "conversations" / "episodes.parquet"
    if not file.exists():
        export_store(TrajectoryStore(out / "experts"), file, chat=chain.chat)


def draw_first_turns(chain: Chain, out: Path, workers: int) -> None:
    """Stage 3, a file at a time."""
    start = -(-chain.experts // 4)
    jobs = []
    for number, first in enumerate(range(start, start + chain.pictures, SHARD)):
        file = out / "first_turns" / f"{number:03d}.parquet"
        if not file.exists():
            last = min(first + SHARD, start + chain.pictures)
            jobs.append((file, chain, first, last))
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with context.Pool(min(workers, len(jobs))) as pool:
        pool.starmap(_draw, jobs)
        pool.close()
        pool.join()  # so that their time counts


def _draw(file: Path, chain: Chain, first: int, last: int) -> None:
    from agents.llm.first_turns import write_first_turns

    torch.set_num_threads(1)
    write_first_turns(file, chain.cases, range(first, last), chain.chat)


def first_tuning(chain: Chain, out: Path) -> None:
    """Stage 4."""
    _tune(chain, out / "first", "tiny", (out / "first_turns",), chain.first_steps, "constant")


def mixed_tuning(chain: Chain, out: Path) -> None:
    """Stage 5."""
    sources = (out / "conversations", out / "first_turns" / "000.parquet")
    _tune(chain, out / "sft", out / "first" / "model", sources, chain.mixed_steps, "cosine")


def _tune(
    chain: Chain, run: Path, model: str | Path, sources: Sequence[Path], steps: int, schedule: str
) -> None:
    from agents.sft import SftConfig, train_sft

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


# the table ------------------------------------------------------------------------------------
def make_table(chain: Chain, out: Path, stages: Stages, console: Console) -> None:
    """Stage 6."""
    from agents.comparison import Arena, compare

    model = f"llm:{out / 'sft' / 'model'}"
    contenders = {
        "tiny, greedy": model,
        "tiny, sampled": f"{model}?temperature=1",
        "tiny, greedy, other pictures": f"shuffled:{model}",
        "tiny, sampled, other pictures": f"shuffled:{model}?temperature=1",
        "the target's usual box": "",
        "random": "random",
        "stop at once": "stop",
        "centre box": "centre-box",
        "oracle: tight box": "oracle-box",
        "oracle: what it learned from": chain.annotator,
    }
    arena = Arena(
        cases=chain.cases,
        backbones=(chain.backbone,),
        num_envs=chain.num_envs,
        max_steps=chain.max_steps,
        limit=chain.test,
        by="target",
    )
    named = [
        _named(label, make_contender(text) if text else usual_box(chain.cases, chain.experts))
        for label, text in contenders.items()
    ]
    found = compare(named, arena, out / "table", console)
    found.write(out / "table")
    rows = [_row(label, found.records[chain.backbone, label]) for label in contenders]
    result = {
        "machine": found.machine,
        "chain": asdict(chain),
        "stages": stages.taken,
        "rows": rows,
    }
    (out / "result.json").write_text(json.dumps(result, indent=1))
    with (out / "result.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot_curve(out, out / "curve.png")
    console.print(_as_table(rows, chain))
    console.print(f"Measured on: {found.machine}")
    console.print(f"wrote result.json, result.csv, curve.png and table/ under {out}")


def _named(label: str, contender: Contender) -> Contender:
    """The same contender under a name that says what it is."""

    def build(envs: Any) -> Any:
        policy = contender.build(envs)
        policy.name = label
        return policy

    return replace(contender, name=label, build=build)


def _row(label: str, records: Sequence[Any]) -> dict[str, Any]:
    """One line of the table, over all cases of a policy."""
    groups = [record.group for record in records]
    calls = sum(record.turns for record in records)
    boxed = [record for record in records if record.first_box_iou is not None]
    row: dict[str, Any] = {"policy": label, "cases": len(records), "pictures": len(set(groups))}
    for name, values in (
        ("dice", [record.dice[-1] for record in records]),
        ("dice_after_1", [record.dice_after(1) for record in records]),
        ("return", [record.episode_return for record in records]),
    ):
        row[name] = sum(values) / len(values)
        row[f"{name}_low"], row[f"{name}_high"] = bootstrap_interval(values, groups) or ("", "")
    row["calls_per_case"] = calls / len(records)
    row["valid_calls"] = 1 - sum(record.invalid for record in records) / calls
    row["readable_calls"] = 1 - sum(record.tools.count("") for record in records) / calls
    row["stopped"] = sum(record.stopped for record in records) / len(records)
    row["cases_with_box"] = len(boxed) / len(records)
    values = [record.first_box_iou for record in boxed]
    row["first_box_iou"] = sum(values) / len(values) if values else ""
    row["first_box_iou_low"], row["first_box_iou_high"] = (
        bootstrap_interval(values, [record.group for record in boxed]) if values else None
    ) or ("", "")
    row["notes"] = "; ".join(dict.fromkeys(note for r in records for note in r.notes))
    return row


def _as_table(rows: Sequence[dict[str, Any]], chain: Chain) -> Table:
    table = Table(title=f"{chain.cases}, test split, {chain.backbone}, {rows[0]['cases']} cases")
    for header in (
        *("policy", "Dice [95 %]", "after the 1st call", "return", "calls", "valid", "stopped"),
        *("with a box", "IoU of the 1st box [95 %]", "note"),
    ):
        table.add_column(header, justify="left" if header in ("policy", "note") else "right")

    def spread(row: dict[str, Any], name: str) -> str:
        if row[name] == "":
            return "-"
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{row[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low != "" else "")

    for row in rows:
        table.add_row(
            row["policy"],
            spread(row, "dice"),
            f"{row['dice_after_1']:.3f}",
            spread(row, "return"),
            f"{row['calls_per_case']:.2f}",
            f"{row['valid_calls']:.1%}",
            f"{row['stopped']:.0%}",
            f"{row['cases_with_box']:.0%}",
            spread(row, "first_box_iou"),
            row["notes"],
        )
    return table


def plot_curve(out: Path, path: Path) -> None:
    """Draw loss and accuracy on the answers' tokens against CPU minutes, both fine-tunings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    before = 0.0
    for run, label in (("first", "first turns, steady rate"), ("sft", "mixed, rate falling")):
        lines = (out / run / "log.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "loss" in row]
        minutes = [before + row["cpu_seconds"] / 60 for row in rows]
        left.plot(minutes, [row["loss"] for row in rows], label=label)
        right.plot(minutes, [row["mean_token_accuracy"] for row in rows], label=label)
        before = minutes[-1]
    left.set(xlabel="CPU minutes", ylabel="loss a token of the answers", yscale="log")
    right.set(xlabel="CPU minutes", ylabel="share of tokens guessed right")
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=130)


# settings -------------------------------------------------------------------------------------
def _read_settings(text: str) -> Chain:
    defaults = asdict(Chain())
    values: dict[str, Any] = {}
    for setting in filter(None, text.split(",")):
        name, _, value = setting.partition("=")
        if name not in defaults:
            raise MedSegError(f"the chain has no setting {name!r}; known: {', '.join(defaults)}")
        values[name] = type(defaults[name])(value)
    return Chain(**values)


def _claim(out: Path, chain: Chain) -> None:
    file = out / "chain.json"
    settings = json.dumps(asdict(chain), indent=1)
    if file.exists() and file.read_text() != settings:
        raise MedSegError(f"{out} holds a chain with other settings; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(settings)


if __name__ == "__main__":
    from medseg_gym.cli import run

    run(run_chain)
