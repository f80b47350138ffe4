"""Peak memory of a learner's gradient step, with and without what saves memory.

    python -m benchmarks.learning.memory           # a quarter of an hour on one core, below 8 GB
    python -m benchmarks.learning.memory --small   # seconds, the tiny model alone

Every row is a process of its own that takes a step of `ChatLearner` on made-up rows of tokens and
reads its peak from Linux (`memory_step`). Models are random, of Qwen3-VL's architecture: the tiny
one; one of 12 layers and 129 million parameters, with short rows and with rows of 1016 tokens; and
one with the vocabulary of Qwen3-VL, 151 936 tokens. The allocator gives freed memory back at once,
so that what is read is what was held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.learning.memory_step import MIB, Step
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

WHOLE = {"share_prompts": False}
CHECKPOINTED = {"gradient_checkpointing": True}
ALL_LOGITS = {"logit_chunk": 0}
SMALL_CHUNKS = {"logit_chunk": 64}
ADAPTERS = {"lora_rank": 16}


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model, and the step that it is measured with."""

    build: dict[str, Any] = field(default_factory=dict)
    """Fields of `TinyConfig`."""

    vocabulary: int | None = None
    """Rows of the embedding; None is what the tokenizer needs."""

    step: dict[str, Any] = field(default_factory=dict)
    """Fields of `Step`."""

    groups: int = 2
    num_generations: int = 4
    micro_batch: int = 4

    settings: tuple[dict[str, Any], ...] = ()
    """Of each row: fields of `ChatSettings`."""


TINY = Size(
    groups=8,
    num_generations=2,
    micro_batch=2,
    settings=(WHOLE, {}, {**WHOLE, **CHECKPOINTED}, CHECKPOINTED, ADAPTERS),
)
LARGE = {"image_size": 128, "patch": 16, "hidden": 768, "layers": 12, "heads": 12}
SIZES = {
    "tiny": TINY,
    "12 layers": Size(
        build=LARGE,
        step={"prompt": 160, "turns": 2, "completion": 16},
        groups=1,
        num_generations=2,
        micro_batch=2,
        settings=(
            WHOLE,
            {},
            {**WHOLE, **CHECKPOINTED},
            CHECKPOINTED,
            {**ADAPTERS, **CHECKPOINTED},
        ),
    ),
    "long rows": Size(
        build=LARGE,
        step={"prompt": 1000, "turns": 1, "completion": 16},
        groups=4,
        num_generations=2,
        settings=tuple(
            {**ADAPTERS, **CHECKPOINTED, **shares, "micro_batch": rows}
            for shares in (WHOLE, {})
            for rows in (1, 2, 4)
        ),
    ),
    "vocabulary": Size(
        build={**LARGE, "layers": 2},
        vocabulary=151936,
        step={"prompt": 32, "turns": 1, "completion": 128},
        groups=1,
        num_generations=2,
        micro_batch=2,
        settings=(
            {**CHECKPOINTED, **ALL_LOGITS},
            {**CHECKPOINTED, **SMALL_CHUNKS},
            {**CHECKPOINTED, **ADAPTERS, **ALL_LOGITS},
            {**CHECKPOINTED, **ADAPTERS, **SMALL_CHUNKS},
        ),
    ),
}
SMALL = {"tiny": Size(groups=2, settings=(WHOLE, {**CHECKPOINTED, **SMALL_CHUNKS}))}


def build(size: Size, folder: Path) -> None:
    """Write the checkpoint of a size."""
    from medseg_agents.llm.tiny_model import TinyConfig, build_model, build_processor

    config = TinyConfig(**size.build)
    processor = build_processor(["liver in abdomen CT, 5 calls."], config)
    model = build_model(processor, config)
    if size.vocabulary:
        model.resize_token_embeddings(size.vocabulary, mean_resizing=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def run_row(size: Size, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure one row in a process of its own.

    Raises:
        MedSegError: The process failed.
    """
    dealt = {"groups": size.groups, "num_generations": size.num_generations}
    step = Step(
        model=str(folder),
        settings={**dealt, "micro_batch": size.micro_batch, **settings},
        **size.step,
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.learning.memory_step", json.dumps(asdict(step))],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise MedSegError(f"a step with {settings} failed: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(
    small: Annotated[bool, typer.Option(help="Two rows of the tiny model.")] = False,
    only: Annotated[str, typer.Option(help="Sizes whose name begins so.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/memory"),
) -> None:
    """Measure every row and print the table."""
    console, rows = make_console(), []
    for name, size in (SMALL if small else SIZES).items():
        if not name.startswith(only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            build(size, Path(folder))
            for settings in size.settings:
                rows.append({"size": name, **run_row(size, settings, Path(folder))})
                del rows[-1]["model"]
                _save(out, rows)  # a row may take minutes: none is lost
    console.print(as_table(rows))
    console.print(f"Measured on: {describe_machine()}")


def _save(out: Path, rows: list[dict[str, Any]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": describe_machine(), "rows": rows}
    atomic_write(out / "results.json", json.dumps(results, indent=1))


def as_table(rows: list[dict[str, Any]]) -> Table:
    """One row a measurement, memory in MiB."""
    table = Table(title="Peak memory of a gradient step, MiB")
    headers = (
        "model",
        "trained",
        "prompts",
        "layers",
        "logits",
        "rows",
        "step",
        "planned",
        "process",
        "s",
    )
    for header in headers:
        table.add_column(header, justify="right")
    for row in rows:
        settings = row["settings"]
        chunk = settings.get("logit_chunk", 512)
        table.add_row(
            f"{row['size']}, {row['parameters'] / 1e6:.0f} M",
            "adapters" if settings.get("lora_rank") else "all",
            "shared" if settings.get("share_prompts", True) else "whole rows",
            "checkpointed" if settings.get("gradient_checkpointing") else "kept",
            f"{chunk} at once" if chunk else "all at once",
            f"{settings['groups']} x {settings['num_generations']} by {settings['micro_batch']}",
            f"{(row['peak'] - row['held']) / MIB:.0f}",
            f"{row['planned'] / MIB:.0f}",
            f"{row['peak'] / MIB:.0f}",
            f"{row['seconds']:.1f}",
        )
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
