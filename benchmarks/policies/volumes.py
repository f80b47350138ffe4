"""3D Dice against the number of prompts, on phantom volumes and on volumes that packages carry.

    python -m benchmarks.policies.volumes --cases phantoms-volume,chest --limit 12

Policies of `medseg_gym.annotators.volumes` play `MedSegVolume-v0`: a box on the key slice and
propagation, then clicks on the largest error in 3D, each followed by propagation; a box on every
slice; a box in the middle of the volume without any truth. The control `ellipse` carries the
ellipse in the box through the volume, a cylinder, until it dies out at the target's ends.

"chest" is the left lung in the CT that slicerio carries. With `--pyradiomics FOLDER`, the data
folder of pyradiomics' source archive, "lung2" and "brain1" are known as well.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.runs.machine import describe_machine

from medseg_gym.annotators.volumes import (
    EverySliceBox,
    KeySliceBox,
    KeySliceClicks,
    MiddleBox,
    VolumePolicy,
)
from medseg_gym.cases.volume_source import VolumeList, VolumeSource, load_volumes
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.envs.volumes.vector import MedSegVolumeVectorEnv
from medseg_gym.episodes.volumes import PropagationOptions
from medseg_gym.storage.atomic_write import atomic_write

PHANTOMS = "phantoms-volume"
CT: dict[str, Any] = {"modality": "CT", "window": "-1000,400"}
MR: dict[str, Any] = {"modality": "MR"}
PYRADIOMICS = {"lung2": CT, "brain1": MR}
ONE_CLICK_TAKES = 2  # steps: the click, and propagate


def open_cases(name: str, pyradiomics: Path | None) -> VolumeSource:
    """Open volumes by the benchmark's name for them, or by a spec of `load_volumes`.

    Raises:
        CaseError: They cannot be used.
        typer.BadParameter: pyradiomics' volumes without their folder.
    """
    if name == "chest":
        image, labels = (
            next(Path(str(f.locate())) for f in files("slicerio") or () if str(f).endswith(tail))
            for tail in ("data/CTChest4.nrrd", "data/Segmentation.seg.nrrd")
        )
        return VolumeList([read_volume_file(image, "left lung", labels, value=6, **CT)], name=name)
    if name in PYRADIOMICS:
        if pyradiomics is None:
            raise typer.BadParameter(f"{name} needs --pyradiomics FOLDER")
        image, labels = (pyradiomics / f"{name}_{kind}.nrrd" for kind in ("image", "label"))
        return VolumeList(
            [read_volume_file(image, "tumour", labels, **PYRADIOMICS[name])], name=name
        )
    return load_volumes(name, "test")


def play(
    source: VolumeSource, keys: list[str], policy: type[VolumePolicy], slots: int, **options: Any
) -> list[dict[str, Any]]:
    """Play each volume once.

    Returns:
        Per volume its key, Dice after each step, and how many prompts were placed by then.
    """
    slots = min(slots, len(keys))
    envs = MedSegVolumeVectorEnv(slots, cases=source, autoreset_mode="disabled", **options)
    actor = policy(envs.codec)
    rows = []
    for start in range(0, len(keys), slots):
        batch = keys[start : start + slots]
        padded = batch + [batch[-1]] * (slots - len(batch))
        observations, _ = envs.reset(options={"case": padded})
        ended = np.zeros(slots, bool)
        while not ended.all():
            observations, _, ended, _, _ = envs.step(actor.act(observations, envs.episodes))  # type: ignore[arg-type]
        for key, episode in zip(batch, envs.episodes, strict=False):
            assert episode is not None  # reset above
            placed = np.cumsum(
                [step.tool in ("box", "positive_point", "negative_point") for step in episode.steps]
            )
            rows.append(
                {
                    "case": key,
                    "dice": [step.dice for step in episode.steps],
                    "prompts": placed.tolist(),
                }
            )
    envs.close()
    return rows


def measure(
    cases: Annotated[str, typer.Option(help="Names or specs, comma between.")] = (
        f"{PHANTOMS},chest"
    ),
    backbone: Annotated[str, typer.Option(help="Name.")] = "pocket",
    clicks: Annotated[int, typer.Option(help="After the box.")] = 3,
    limit: Annotated[int, typer.Option(help="Volumes per source at most.")] = 12,
    slots: Annotated[int, typer.Option(help="Volumes at a time.")] = 4,
    pyradiomics: Annotated[Path | None, typer.Option(help="Folder of its data.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
) -> None:
    """Measure and print a table."""
    names = cases.split(",")
    tight = PropagationOptions(loosen=0.0)
    table: dict[str, dict[str, list[float]]] = {}
    record: dict[str, Any] = {"machine": describe_machine(), "backbone": backbone, "rows": {}}
    for name in names:
        source = open_cases(name, pyradiomics)
        keys = [source.keys[i] for i in range(min(limit, len(source)))]
        began = time.perf_counter()

        def run(policy: type[VolumePolicy], steps: int, **changed: Any) -> list[dict[str, Any]]:
            options = {"backbone": backbone, "max_steps": steps, **changed}
            return play(source, keys, policy, slots, **options)  # noqa: B023

        steps = 2 + ONE_CLICK_TAKES * clicks
        played = {
            "box, propagate, clicks": run(KeySliceClicks, steps),
            "every slice": run(EverySliceBox, 200),
            "middle box": run(MiddleBox, 3),
            "cylinder": run(KeySliceBox, 3, backbone="ellipse", propagation=tight),
        }
        column = table.setdefault(name, {})
        for count in range(clicks + 1):
            at = 1 + ONE_CLICK_TAKES * count
            column[f"key-slice box + {count} clicks, propagated (oracle)"] = [
                row["dice"][min(at, len(row["dice"]) - 1)]
                for row in played["box, propagate, clicks"]
            ]
        boxes = np.mean([row["prompts"][-1] for row in played["every slice"]])
        column["a box on every slice of the target (oracle)"] = [
            row["dice"][-1] for row in played["every slice"]
        ]
        column["`ellipse`: key-slice box as a cylinder (oracle, control)"] = [
            row["dice"][-1] for row in played["cylinder"]
        ]
        column["middle box, propagated (no truth)"] = [
            row["dice"][-1] for row in played["middle box"]
        ]
        record["rows"][name] = played
        seconds = time.perf_counter() - began
        print(f"{name}: {len(keys)} cases, {boxes:.1f} boxes on every slice, {seconds:.0f} s")
    print(f"\n{record['machine']}\n")
    print("| mean 3D Dice | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for line in table[names[0]]:
        means = [f"{np.mean(table[name][line]):.3f}" for name in names]
        print(f"| {line} | " + " | ".join(means) + " |")
    if out is not None:
        atomic_write(out, json.dumps(record))


if __name__ == "__main__":
    typer.run(measure)
