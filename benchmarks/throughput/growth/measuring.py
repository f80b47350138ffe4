"""Measuring a curve, in a process of its own so that its peak memory is its own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.throughput.growth.exponent import Exponent, fit_exponent


@dataclass(frozen=True)
class Growth:
    """A measured curve.

    Args:
        name: Of the curve.
        what: See `Curve`.
        unit: See `Curve`.
        power: See `Curve`.
        sizes: Ascending.
        seconds: Per size, of every turn: CPU time on a CPU, else wall time.
        peaks: Per size, MiB held at most until then, smaller sizes included; None if unknown.
    """

    name: str
    what: str
    unit: str
    power: int
    sizes: tuple[int, ...]
    seconds: tuple[tuple[float, ...], ...]
    peaks: tuple[float | None, ...]

    @property
    def exponent(self) -> Exponent:
        """Of the cost, in amounts of work."""
        return fit_exponent([size**self.power for size in self.sizes], self.seconds)

    def as_json(self) -> dict[str, Any]:
        """Everything, the exponent too."""
        return {**asdict(self), "exponent": self.exponent._asdict()}


def measure_curve(
    name: str, sizes: Sequence[int], backbone: str, device: str, turns: int, folder: Path
) -> Growth:
    """Measure one curve, its sizes taking turns after a first, ascending round that counts memory.

    One thread and CPU time on a CPU: programs beside it then change it little.

    Args:
        name: Out of `CURVES`.
        sizes: Ascending.
        backbone: See `Setting`.
        device: See `Setting`.
        turns: Timed for every size.
        folder: See `Setting`.
    """
    import torch

    from benchmarks.shared.meters import forget_peak, peak_memory, synchronise
    from benchmarks.throughput.growth.curves import CURVES, Setting

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # of indexes
    torch.set_num_threads(1)
    where = torch.device(device)
    clock = time.process_time if where.type == "cpu" else time.perf_counter
    curve, setting = CURVES[name], Setting(backbone, device, folder)
    seconds: list[list[float]] = [[] for _ in sizes]
    peaks = []
    with ExitStack() as stack:
        works = []
        for size in sizes:
            forget_peak(where)
            prepared = stack.enter_context(closing(curve.prepare(setting, size)))  # type: ignore[type-var]
            works.append(next(prepared))
            works[-1]()
            peaks.append(peak_memory(where))
        for turn in range(turns):
            for i in range(len(works))[:: 1 if turn % 2 else -1]:
                # Short pieces of work are repeated: a clock has its steps.
                repeats = max(1, min(16, 16 * sizes[0] // sizes[i]))
                synchronise(where)
                began = clock()
                for _ in range(repeats):
                    works[i]()
                synchronise(where)
                seconds[i].append((clock() - began) / repeats)
    return Growth(
        name, curve.what, curve.unit, curve.power, tuple(sizes),
        tuple(map(tuple, seconds)), tuple(peaks),
    )  # fmt: skip
