"""3D Dice against the number of prompts, on phantom volumes and on volumes that packages carry.

    python -m benchmarks.policies.volumes --cases phantoms-volume,chest --limit 12

Policies of volumes play `MedSegVolume-v0`: a box on the key slice and propagation, then clicks on
the largest error in 3D or boxes on the slices that err most, each followed by propagation; a box
on every slice; without the truth a box in the middle, and the usual box on the usual slice of
each target (`location-prior`, where the volumes have a training split). The control `ellipse`
carries the ellipse in the box through the volume, a cylinder, until it dies out at the target's
ends.

"chest" is the left lung in the CT that slicerio carries. With `--pyradiomics FOLDER`, the data
folder of pyradiomics' source archive, "lung2" and "brain1" are known as well.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.evaluation.volumes.records import VolumeRecord
from medseg_agents.policies.specs import PolicySpec
from medseg_agents.runs.machine import describe_machine

from medseg_gym import backbones
from medseg_gym.episodes.volumes import PropagationOptions
from medseg_gym.storage.atomic_write import atomic_write

PHANTOMS = "phantoms-volume"
CT = "modality=CT&window=-1000,400"
MR = "modality=MR"
PYRADIOMICS = {"lung2": CT, "brain1": MR}
ONE_MORE_TAKES = 2  # steps: the prompt, and propagate
MANY = 200  # steps: more than there are slices with a target
PRIOR = f"volume:location-prior:{PHANTOMS}"
LINES = {
    "a box on every slice of the target (oracle)": "every slice",
    "`ellipse`: key-slice box as a cylinder (oracle, control)": "cylinder",
    "usual box on the usual slice, propagated (no truth)": "location-prior",
    "middle box, propagated (no truth)": "middle box",
}


def spec_of(name: str, pyradiomics: Path | None) -> str:
    """Return the case spec of the benchmark's name for volumes; other names are specs already.

    Raises:
        typer.BadParameter: pyradiomics' volumes without their folder.
    """
    if name == "chest":
        image, labels = (
            next(Path(str(f.locate())) for f in files("slicerio") or () if str(f).endswith(tail))
            for tail in ("data/CTChest4.nrrd", "data/Segmentation.seg.nrrd")
        )
        return f"volume:{image}?truth={labels}&value=6&target=left lung&{CT}"
    if name in PYRADIOMICS:
        if pyradiomics is None:
            raise typer.BadParameter(f"{name} needs --pyradiomics FOLDER")
        image, labels = (pyradiomics / f"{name}_{kind}.nrrd" for kind in ("image", "label"))
        return f"volume:{image}?truth={labels}&target=tumour&{PYRADIOMICS[name]}"
    return name


def play(
    specs: Sequence[PolicySpec], cases: str, backbone: str, steps: int, slots: int, limit: int
) -> list[list[VolumeRecord]]:
    """Play each volume once with every policy; returns their records."""
    options = CompareOptions(
        cases=cases,
        backbones=(backbone,),
        limit=limit,
        volume_steps=steps,
        volume_envs=slots,
    )
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare(specs, options, Path(folder))
    return [one.seeds[0].scorer.result().records for one in comparison.played]


def measure(
    cases: Annotated[str, typer.Option(help="Names or specs, comma between.")] = (
        f"{PHANTOMS},chest"
    ),
    backbone: Annotated[str, typer.Option(help="Name.")] = "pocket",
    refinements: Annotated[int, typer.Option(help="Prompts after the box.")] = 3,
    limit: Annotated[int, typer.Option(help="Volumes per source at most.")] = 12,
    slots: Annotated[int, typer.Option(help="Volumes at a time.")] = 4,
    pyradiomics: Annotated[Path | None, typer.Option(help="Folder of its data.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
) -> None:
    """Measure and print a table."""
    names = cases.split(",")
    trained = backbones.load(backbone).trained_kinds
    kinds = ["clicks", "boxes"] if "point" in trained else ["boxes"]
    tight = {"propagation": PropagationOptions(loosen=0.0)}
    cylinder = replace(policies.make("oracle-key-slice"), view=tight)
    table: dict[str, dict[str, list[float]]] = {}
    record: dict[str, Any] = {"machine": describe_machine(), "backbone": backbone, "rows": {}}
    for name in names:
        cases, began = spec_of(name, pyradiomics), time.perf_counter()
        stopping = {"every slice": "oracle-every-slice", "middle box": "middle-box"}
        if name == PHANTOMS:
            stopping["location-prior"] = PRIOR
        going_on = {kind: f"oracle-key-slice-{kind}" for kind in kinds}
        played: dict[str, list[VolumeRecord]] = {}
        for texts, steps in ((stopping, MANY), (going_on, 2 + ONE_MORE_TAKES * refinements)):
            specs = [policies.make(text) for text in texts.values()]
            rows = play(specs, cases, backbone, steps, slots, limit)
            played |= dict(zip(texts, rows, strict=True))
        (played["cylinder"],) = play([cylinder], cases, "ellipse", MANY, slots, limit)
        column = table.setdefault(name, {})
        for kind in kinds:
            for count in range(refinements + 1):
                column[f"key-slice box + {count} {kind}, propagated (oracle)"] = [
                    one.dice_after_prompts(1 + count) for one in played[kind]
                ]
        boxes = np.mean([one.prompts for one in played["every slice"]])
        for line, key in LINES.items():
            if key in played:
                column[line] = [one.volume_dice for one in played[key]]
        record["rows"][name] = {
            key: [
                {
                    "case": one.volume,
                    "dice": one.dice_by_step[1:],
                    "prompts": one.prompts_by_step[1:],
                }
                for one in rows
            ]
            for key, rows in played.items()
        }
        seconds = time.perf_counter() - began
        count = len(played["every slice"])
        print(f"{name}: {count} cases, {boxes:.1f} boxes on every slice, {seconds:.0f} s")
    print(f"\n{record['machine']}\n")
    print("| mean 3D Dice | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for line in dict.fromkeys(line for name in names for line in table[name]):
        values = [table[name].get(line) for name in names]
        means = ["" if one is None else f"{np.mean(one):.3f}" for one in values]
        print(f"| {line} | " + " | ".join(means) + " |")
    if out is not None:
        atomic_write(out, json.dumps(record))


if __name__ == "__main__":
    typer.run(measure)
