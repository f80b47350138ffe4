"""Environment steps a second that a backbone allows.

    python -m benchmarks.throughput.step_speed --backbones pocket,lite_medsam --num-envs 1,16

Real cases, whole steps of `MedSegVectorEnv`: prompts, decode, masks, Dice, reward, observation and
the resets in between. Every counted step makes a mask in every slot (the benchmark checks it). A
backbone that was trained for boxes alone gets a box in every step, the others a box and then four
clicks. "cached" plays images that were encoded before; "fresh" forgets all embeddings before every
reset (slots that draw the same image share its encoding). The backbones take turns, so that their
ratio holds on a noisy machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import typer
from medseg_agents.runs.machine import describe_machine

import medseg_gym  # noqa: F401  (registers the id)
from benchmarks.shared.meters import MeteredBackbone
from benchmarks.shared.results import show_and_keep
from medseg_gym import backbones
from medseg_gym.backbones import embedding_cache
from medseg_gym.cases import CaseList, load_cases
from medseg_gym.display.terminal import Table

IMAGES = 8  # distinct ones, encoded before the clock starts
EPISODE = 5


def measure(
    names: Annotated[
        str, typer.Option("--backbones", help="Names, comma between; ratios are to the last.")
    ] = "pocket,lite_medsam",
    checkpoint: Annotated[
        str | None, typer.Option(help="Weight file of the first backbone.")
    ] = None,
    num_envs: Annotated[str, typer.Option(help="Numbers of slots, comma between.")] = "1,16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    repeats: Annotated[int, typer.Option(help="Turns of each backbone.")] = 5,
    seconds: Annotated[float, typer.Option(help="Of one turn.")] = 4.0,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/step_speed"),
) -> None:
    """Time steps and encodings, print medians over turns."""
    source = load_cases("samples", "test")
    cases = CaseList([source[i * len(source) // IMAGES] for i in range(IMAGES)])
    loaded = [
        backbones.load(name, checkpoint if name == names.split(",")[0] else None, device)
        for name in names.split(",")
    ]
    rows: list[dict[str, Any]] = []
    settings = [(slots, fresh) for slots in map(int, num_envs.split(",")) for fresh in (0, 1)]
    for slots, fresh in settings:
        rates: dict[str, list[float]] = {b.name: [] for b in loaded}
        for _ in range(repeats):
            for backbone in loaded:
                rate = steps_per_second(backbone, cases, slots, seconds, bool(fresh))
                rates[backbone.name].append(rate)
        last = np.median(rates[loaded[-1].name])
        for name, values in rates.items():
            rate = float(np.median(values))
            rows.append({"backbone": name, "envs": slots,
                         "images": ("cached", "fresh")[fresh], "rate": rate, "ratio": rate / last,
                         "low": min(values), "high": max(values)})  # fmt: skip
    encoding = {b.name: encode_milliseconds(b, cases, repeats) for b in loaded}
    table = Table(title=f"whole steps on {IMAGES} real images, {repeats} turns of {seconds:g} s")
    headers = ("backbone", "images", "envs", "env-steps/s", "lowest-highest")
    for header in (*headers, f"x {loaded[-1].name}", "encode, ms an image"):
        table.add_column(header, justify="left" if header == "backbone" else "right")
    for row in rows:
        table.add_row(
            row["backbone"], row["images"], str(row["envs"]), f"{row['rate']:.0f}",
            f"{row['low']:.0f}-{row['high']:.0f}", f"{row['ratio']:.1f}",
            f"{encoding[row['backbone']]:.0f}",
        )  # fmt: skip
    machine = f"{describe_machine(str(loaded[0].device))}, load {os.getloadavg()[0]:.1f}"
    show_and_keep(table, machine, out, rows=rows, encode_ms=encoding)


def steps_per_second(
    backbone: backbones.Backbone, cases: CaseList, slots: int, seconds: float, fresh: bool
) -> float:
    """Whole environment steps, each of which made a mask, per second."""
    rng = np.random.default_rng(0)
    with MeteredBackbone(backbone) as metered:
        envs = gym.make_vec(
            "MedSeg-v0", num_envs=slots, cases=cases, backbone=metered, max_steps=EPISODE,
            autoreset_mode="same_step",
        )  # fmt: skip
        for case in cases:  # encode everything before the clock starts
            envs.reset(options={"case": [case.key] * slots})
        envs.reset(seed=0)
        boxes_alone = "point" not in backbone.trained_kinds

        def step(turn: int) -> None:
            actions = np.zeros((slots, 5), np.int64)
            actions[:, 0] = 0 if boxes_alone or turn % EPISODE == 0 else 1
            low, high = rng.integers(100, 450, (slots, 2)), rng.integers(550, 900, (slots, 2))
            actions[:, 1:3], actions[:, 3:] = low, high
            if fresh and turn % EPISODE == EPISODE - 1:  # this step ends the episodes
                cache.clear()
            envs.step(actions)

        cache = embedding_cache(metered)
        for turn in range(EPISODE):
            step(turn)
        metered.counts.clear()
        turns, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds or turns % EPISODE:
            step(turns)
            turns += 1
        spent = time.perf_counter() - began
        envs.close()
        made, encoded = metered.counts["rows"], metered.counts["encodes"]
        assert made == turns * slots and bool(encoded) is fresh, (made, turns * slots, encoded)
    return turns * slots / spent


def encode_milliseconds(backbone: backbones.Backbone, cases: CaseList, repeats: int) -> float:
    """Median milliseconds of one image encoded alone."""
    spent = []
    for turn in range(repeats + 1):
        for case in cases:
            began = time.perf_counter()
            for feature in backbone.encode([case.image])[0].features:
                feature.sum().item()  # a GPU has finished only when it answers
            if turn:
                spent.append(time.perf_counter() - began)
    return 1000 * float(np.median(spent))


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
