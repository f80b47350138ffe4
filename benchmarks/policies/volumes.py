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
import time
from importlib.metadata import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.policies.volume_location_prior import volume_location_prior
from medseg_agents.runs.machine import describe_machine

from medseg_gym import annotators, backbones
from medseg_gym.cases.volume_source import VolumeList, VolumeSource, load_volumes
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.episodes.volumes import PropagationOptions
from medseg_gym.policy import Policy, make_envs, play_cases
from medseg_gym.storage.atomic_write import atomic_write

PHANTOMS = "phantoms-volume"
CT: dict[str, Any] = {"modality": "CT", "window": "-1000,400"}
MR: dict[str, Any] = {"modality": "MR"}
PYRADIOMICS = {"lung2": CT, "brain1": MR}
ONE_MORE_TAKES = 2  # steps: the prompt, and propagate
PROMPTS = ("box", "positive_point", "negative_point")
PRIOR = "location-prior"
LINES = {
    "a box on every slice of the target (oracle)": "every slice",
    "`ellipse`: key-slice box as a cylinder (oracle, control)": "cylinder",
    "usual box on the usual slice, propagated (no truth)": PRIOR,
    "middle box, propagated (no truth)": "middle box",
}


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
    source: VolumeSource, keys: list[str], policy: str, slots: int, **options: Any
) -> list[dict[str, Any]]:
    """Play each volume once.

    Returns:
        Per volume its key, Dice after each step, and how many prompts were placed by then.
    """
    slots = min(slots, len(keys))
    envs = make_envs(slots, "MedSegVolume-v0", cases=source, **options)
    if policy == PRIOR:
        actor: Policy = volume_location_prior(envs, PHANTOMS)
    else:
        actor = annotators.make(policy, envs.codec)
    rows = []
    for batch in play_cases(envs, actor, keys):
        for played in batch:
            steps = played.episode.steps
            placed = np.cumsum([step.tool in PROMPTS for step in steps])
            dice = [step.dice for step in steps]
            rows.append({"case": played.key, "dice": dice, "prompts": placed.tolist()})
    envs.close()
    return rows


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
    tight = PropagationOptions(loosen=0.0)
    table: dict[str, dict[str, list[float]]] = {}
    record: dict[str, Any] = {"machine": describe_machine(), "backbone": backbone, "rows": {}}
    for name in names:
        source = open_cases(name, pyradiomics)
        keys = [source.keys[i] for i in range(min(limit, len(source)))]
        began = time.perf_counter()

        def run(policy: str, steps: int, **changed: Any) -> list[dict[str, Any]]:
            options = {"backbone": backbone, "max_steps": steps, **changed}
            return play(source, keys, policy, slots, **options)  # noqa: B023

        steps = 2 + ONE_MORE_TAKES * refinements
        played = {
            "every slice": run("oracle-every-slice", 200),
            "middle box": run("middle-box", 3),
            "cylinder": run("oracle-key-slice", 3, backbone="ellipse", propagation=tight),
            **({PRIOR: run(PRIOR, 3)} if name == PHANTOMS else {}),
        }
        column = table.setdefault(name, {})
        for kind in kinds:
            row = played[kind] = run(f"oracle-key-slice-{kind}", steps)
            for count in range(refinements + 1):
                at = 1 + ONE_MORE_TAKES * count
                column[f"key-slice box + {count} {kind}, propagated (oracle)"] = [
                    one["dice"][min(at, len(one["dice"]) - 1)] for one in row
                ]
        boxes = np.mean([row["prompts"][-1] for row in played["every slice"]])
        for line, key in LINES.items():
            if key in played:
                column[line] = [row["dice"][-1] for row in played[key]]
        record["rows"][name] = played
        seconds = time.perf_counter() - began
        print(f"{name}: {len(keys)} cases, {boxes:.1f} boxes on every slice, {seconds:.0f} s")
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
