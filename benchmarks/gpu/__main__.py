"""Everything that only a GPU can tell, in one call of at most ten minutes; one table, last.

    python -m benchmarks.gpu --out out/gpu
    python -m benchmarks.gpu --device cpu --small

`benchmarks/gpu/run.sh` does the same on a bare machine. A part that fails or uses up its share of
the time is a row that says so, and the others still run; so is what the machine has not got. The
exit status is 1 where something failed, ran out of time or missed its floor. Rows are printed and
kept as they come (`rows.jsonl`); `gpu.json` has them all, with the machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.gpu.parts import PARTS, Part, choose
from benchmarks.gpu.rows import FAILED, LATE, Row, is_fine, keep, read, show
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

_GRACE = 15.0
"""Seconds that a part gets beyond its share to finish what it has begun."""


class Stopped(Exception):
    """The program was told to end: by a limit of time, or by its user."""


def measure(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    small: Annotated[bool, typer.Option(help="Small models: only to see that it runs.")] = False,
    parts: Annotated[str, typer.Option(help=f"Out of {', '.join(PARTS)}; by default all.")] = "",
    seconds: Annotated[float, typer.Option(help="For everything.")] = 570,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/gpu"),
) -> None:
    """Run the parts one after the other, and print the table."""
    import torch

    chosen = choose(parts)
    if device not in ("cuda", "cpu"):
        raise MedSegError(f"--device must be cuda or cpu, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise MedSegError("there is no GPU that torch can use; --device cpu --small runs without")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "rows.jsonl"
    file.unlink(missing_ok=True)
    machine = describe_machine(device)
    print(f"Measured on: {machine}", flush=True)
    options = ["--device", device, *(["--small"] if small else [])]
    took: dict[str, float] = {}
    try:
        with stopped_by_signals():
            for name, limit in shares(chosen, seconds):
                began = time.monotonic()
                run_apart(name, file, limit, options, out / f"{name}.log")
                took[name] = time.monotonic() - began
    except Stopped as stop:
        keep(file, Row(part="all", what=f"ended by {stop}", verdict=LATE))
    rows = read(file)
    results: dict[str, Any] = {
        "machine": machine,
        "small": small,
        "seconds": took,
        "rows": [asdict(row) for row in rows],
    }
    atomic_write(out / "gpu.json", json.dumps(results, indent=1))
    show(rows, f"{machine}{', small models' if small else ''}")
    if not is_fine(rows):
        raise typer.Exit(1)


def shares(parts: Mapping[str, Part], seconds: float) -> Iterator[tuple[str, float]]:
    """Yield each part's name and limit in seconds, out of what is left when it is its turn.

    Args:
        parts: In order.
        seconds: For all of them.
    """
    ends = time.monotonic() + seconds
    left = sum(part.share for part in parts.values())
    for name, part in parts.items():
        yield name, max(0.0, ends - time.monotonic()) * part.share / left
        left -= part.share


def run_apart(name: str, file: Path, limit: float, options: list[str], log: Path) -> None:
    """Run a part in a process of its own; a row says where it failed or was ended.

    Args:
        name: Of the part.
        file: Rows go there.
        limit: Seconds.
        options: Of the part.
        log: File for what it prints as warnings and errors.
    """
    # The part ends by itself some time before the limit; start-up counts.
    command = [sys.executable, "-m", "benchmarks.gpu.parts", name, "--rows", str(file)]
    command += ["--seconds", f"{max(1.0, limit - _GRACE):.1f}", *options]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stderr=errors, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            keep(file, Row(part=name, what=PARTS[name].summary, verdict=LATE,
                           value=f"ended after {limit:.0f} s"))  # fmt: skip
            return
        finally:
            _end_group(process)
    if code:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        reason = lines[-1].strip()[:300] if lines else f"exit status {code}"
        keep(file, Row(part=name, what=PARTS[name].summary, verdict=FAILED, value=reason))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has started (workers of Ray, of compilers)."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the signals that end a program into `Stopped`, so that the table is printed."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
