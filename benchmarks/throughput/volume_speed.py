"""Seconds and memory of volumes: encoding, propagation, a long CT, and one batch against many.

    python -m benchmarks.throughput.volume_speed --backbone pocket

Synthetic CTs of 512 x 512 pixels: noise and a bright tube through all slices, so that a box on the
middle slice is carried to both ends (limits of propagation off). "long" has 600 slices, and a cache
of embeddings that holds some of them: the others go to disk and come back from there when the box
is propagated again. "batch" plays the same script (a box, propagate, a click, propagate, a look) on
8 phantom volumes in one vector environment and, in turns with it, in 8 single environments of this
process; everything is encoded before the clock starts, and the ratio is that of the medians.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from medseg_agents.runs.machine import describe_machine

from medseg_gym import backbones
from medseg_gym.backbones import embedding_cache
from medseg_gym.backbones.spilling import SpillFolder
from medseg_gym.cases import VolumeCase
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.envs.volumes import MedSegVolumeEnv, MedSegVolumeVectorEnv
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt, VolumePrompt
from medseg_gym.storage.atomic_write import atomic_write

EVERYWHERE = PropagationOptions(
    max_shift=float("inf"), max_drift=float("inf"), max_change=1e9, min_overlap=0.0
)
SLOTS = 8
MB = 1e6


def tube(depth: int, side: int = 512) -> VolumeCase:
    """A CT of noise with a bright tube that sways through it."""
    rng = np.random.default_rng(depth)
    image = rng.integers(30, 70, (depth, side, side), np.uint8)
    mask = np.zeros(image.shape, bool)
    y, x = np.mgrid[:side, :side]
    for index in range(depth):
        middle = side * (0.5 + 0.1 * np.sin(index / 20))
        mask[index] = (x - middle) ** 2 + (y - side / 2) ** 2 < (side / 6) ** 2
    image[mask] += 120
    return VolumeCase(f"tube-{depth}", image, mask, "tube", "CT", spacing=(1.0, 0.7, 0.7))


class PeakMemory:
    """Most memory that this process has held since `start`, beyond what it held then."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look every 20 ms while the body runs."""
        start, over = resident(), threading.Event()

        def look() -> None:
            while not over.wait(0.02):
                self.bytes = max(self.bytes, resident() - start)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.bytes = max(self.bytes, resident() - start)


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def one_box(
    backbone: str,
    device: str,
    depth: int,
    cache_bytes: int | None,
    repeats: int,
    threads: int,
    side: int = 512,
) -> dict[str, Any]:
    """Encode a tube, carry one box through it, and again."""
    torch.set_num_threads(threads)
    case = tube(depth, side)
    loaded = backbones.load(backbone, device=device, cache_bytes=cache_bytes)
    cache = embedding_cache(loaded)
    cache.clear()
    cache.spill = SpillFolder(8 << 30)
    loaded.encode([case.rgb(0)])  # the first pass of a process is slower
    memory = PeakMemory()
    with memory.watch():
        began = time.perf_counter()
        for index in range(depth):
            cache.get(loaded, [case.rgb(index)], [f"{case.content_hash}-{index}"])
        encode = time.perf_counter() - began
        seconds = []
        for _ in range(repeats):
            engine = VolumeEngine(loaded, propagation=EVERYWHERE)
            engine.reset([0], [case])
            engine.step([0], [SlicePrompt(depth // 2, AddBox(0.33, 0.33, 0.67, 0.67))])
            began = time.perf_counter()
            engine.step([0], [Propagate()])
            seconds.append(time.perf_counter() - began)
    episode = engine.episode(0)
    assert len(episode.state.slices) == depth, len(episode.state.slices)
    return {
        "slices": depth,
        "encode_s": encode,
        "propagate_s": float(np.median(seconds)),
        "encodes": cache.counters.encodes,
        "reads_from_disk": cache.counters.reads,
        "memory_mb": memory.bytes / MB,
        "embeddings_in_memory_mb": cache.nbytes / MB,
        "embeddings_on_disk_mb": cache.spill.nbytes / MB,
        "dice": episode.dice,
    }


def script(depth: int) -> list[VolumePrompt]:
    """Prompts of the batch."""
    middle = depth // 2
    return [
        SlicePrompt(middle, AddBox(0.3, 0.3, 0.7, 0.7)),
        Propagate(),
        SlicePrompt(middle + 1, AddPoint(0.5, 0.5)),
        Propagate(),
        Look(middle),
    ]


def batch_against_single(backbone: str, device: str, repeats: int) -> dict[str, Any]:
    """Steps a second of one vector environment and of as many single ones."""
    source = load_volumes("phantoms-volume", "test")
    cases = [source[index] for index in range(SLOTS)]
    options: dict[str, Any] = {"cases": cases, "backbone": backbone, "device": device}
    envs = MedSegVolumeVectorEnv(SLOTS, max_steps=100, **options)
    singles = [MedSegVolumeEnv(max_steps=100, **options) for _ in cases]
    rows = [[envs.codec.encode(p, case.depth) for p in script(case.depth)] for case in cases]
    rates: dict[str, list[float]] = {"vector": [], "single": []}
    dice: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        envs.reset(options={"case": [case.key for case in cases]})
        began = time.perf_counter()
        for number in range(len(rows[0])):
            envs.step(np.stack([row[number] for row in rows]))
        vector = time.perf_counter() - began
        for env, case in zip(singles, cases, strict=True):
            env.reset(options={"case": case.key})
        began = time.perf_counter()
        for number in range(len(rows[0])):
            for env, row in zip(singles, rows, strict=True):
                env.step(row[number])
        single = time.perf_counter() - began
        if turn:  # the first one encodes
            rates["vector"].append(SLOTS * len(rows[0]) / vector)
            rates["single"].append(SLOTS * len(rows[0]) / single)
    dice["vector"] = [episode.dice for episode in envs.core.episodes(range(SLOTS))]
    dice["single"] = [env.episode.dice for env in singles]
    assert np.allclose(dice["vector"], dice["single"], atol=0.02), dice
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    return {**medians, "ratio": medians["vector"] / medians["single"]}


def measure(
    backbone: Annotated[str, typer.Option(help="Name.")] = "pocket",
    long: Annotated[int, typer.Option(help="Slices of the long CT; 0 leaves it out.")] = 600,
    cache_mb: Annotated[int, typer.Option(help="Cache of embeddings for the long CT.")] = 256,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    record: dict[str, Any] = {"machine": describe_machine(device), "backbone": backbone}
    record["batch"] = batch_against_single(backbone, device, repeats)
    print("| | steps/s |\n|---|---|")
    for name in ("vector", "single"):
        print(f"| {SLOTS} volumes, {name} | {record['batch'][name]:.2f} |")
    print(f"\nratio {record['batch']['ratio']:.2f}\n")
    print("| slices | encode, s | propagate, s | memory, MB | encoded | read from disk | Dice |")
    print("|---|---|---|---|---|---|---|")
    record["tubes"] = []
    for depth, limit in ((61, None), (long, cache_mb << 20)):
        if not depth:
            continue
        # A process of its own: memory that an earlier one gave back would be used again.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            arguments = backbone, device, depth, limit, repeats if limit is None else 2, threads
            row = pool.submit(one_box, *arguments).result()
        record["tubes"].append(row)
        print(
            f"| {depth} | {row['encode_s']:.1f} | {row['propagate_s']:.2f} | "
            f"{row['memory_mb']:.0f} | {row['encodes']} | {row['reads_from_disk']} | "
            f"{row['dice']:.3f} |"
        )
    print(f"\n{record['machine']}, load {os.getloadavg()[0]:.1f}")
    if out is not None:
        atomic_write(out, json.dumps(record, indent=1))


if __name__ == "__main__":
    typer.run(measure)
