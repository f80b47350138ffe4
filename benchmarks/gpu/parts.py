"""Parts of the GPU program, each run in a process of its own.

    python -m benchmarks.gpu.parts parity --rows rows.jsonl --device cpu --small

A part that fails, hangs or takes all memory so costs its own rows only; modes that it sets (TF32,
warnings of waits) and its peak memory are nobody else's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.gpu.rows import SKIPPED, Job
from medseg_gym.errors import MedSegError


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        module: Whose `run(job)` does the work.
        summary: What it does.
        share: Of the time, in seconds of ten minutes; what one leaves over goes to the next.
        needs: Modules without which it is skipped, beside torch and what the suite always needs.
    """

    module: str
    summary: str
    share: float
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Modules that it needs and this machine lacks."""
        return [name for name in self.needs if find_spec(name) is None]


PARTS = {
    "parity": Part("benchmarks.gpu.parity", "every backbone family, device against CPU", 100),
    "waits": Part("benchmarks.gpu.waits", "waits of the host for the device, in a step", 40),
    "speed": Part("benchmarks.gpu.speed", "five workloads and their floors", 190),
    "variants": Part("benchmarks.gpu.variants", "bfloat16, compiled, CUDA graph", 90),
    "grpo": Part(
        "benchmarks.gpu.rl",
        "GRPO of a language model of some hundred million parameters",
        140,
        ("ray", "tree", "trl", "datasets", "peft", "accelerate", "pandas", "pyarrow", "scipy"),
    ),
}


def choose(names: str) -> dict[str, Part]:
    """Parts by name, comma between, in their own order; all for an empty text.

    Raises:
        MedSegError: There is no such part.
    """
    wanted = [name for name in names.split(",") if name]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise MedSegError(f"there is no part {', '.join(unknown)}; known: {', '.join(PARTS)}")
    return {name: part for name, part in PARTS.items() if not wanted or name in wanted}


def run_part(
    name: Annotated[str, typer.Argument(help="One of the parts.")],
    rows: Annotated[Path, typer.Option(help="File that rows are added to.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    small: Annotated[bool, typer.Option(help="Small models: only to see that it runs.")] = False,
    seconds: Annotated[float, typer.Option(help="Nothing further is begun after them.")] = 120,
) -> None:
    """Do one part and keep its rows."""
    (part,) = choose(name).values()
    job = Job(name, device, small, time.monotonic() + seconds, rows)
    if part.missing:
        job.add(part.summary, SKIPPED, f"not installed: {', '.join(part.missing)}")
        return
    import_module(part.module).run(job)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(run_part)
