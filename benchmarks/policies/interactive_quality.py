"""Quality of a segmenter at each prompt, with controls for looking at the image.

    python -m benchmarks.policies.interactive_quality --backbone pocket

Three ways to prompt, each by an oracle: clicks on the worst error, a tight box and then clicks, a
loose box (sides up to 20 % too far out) and then clicks. Beside the backbone stand LiteMedSAM
(boxes alone: it was trained for nothing else) and two controls: `ellipse`, which never sees the
image and has the same oracle, and the backbone itself given the very same prompts on another image.
What a segmenter is worth is what it has above them, case by case. Intervals resample groups
(patients, volumes or images); with fewer than five there is none, and every group is shown alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from medseg_agents.evaluation.summary import write_csv
from medseg_agents.runs.machine import describe_machine

from benchmarks.policies.controls import OtherImage, SamePrompts
from benchmarks.policies.interactive_report import (
    curve_table,
    difference_rows,
    difference_table,
    plot_curves,
    summarise_curves,
)
from benchmarks.policies.interactive_tracks import STEPS, WAYS, Track
from medseg_gym import annotators, backbones
from medseg_gym.backbones import Backbone
from medseg_gym.cases import Case, CaseList, left_out_note, load_cases
from medseg_gym.display.terminal import make_console
from medseg_gym.envs.contact_sheet import contact_sheet
from medseg_gym.errors import MedSegError
from medseg_gym.policy import Policy, make_envs, play_cases
from medseg_gym.storage.atomic_write import atomic_write


def measure(
    cases: Annotated[
        list[str] | None, typer.Option(help="Case spec, may be repeated; phantoms and samples.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    backbone: Annotated[str, typer.Option(help="Name.")] = "pocket",
    checkpoint: Annotated[str | None, typer.Option(help="Its weight file.")] = None,
    beside: Annotated[
        str, typer.Option(help="Backbones beside it, given boxes alone; empty for none.")
    ] = "lite_medsam",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 16,
    limit: Annotated[int, typer.Option(help="Most cases of a source.")] = 240,
    min_area: Annotated[
        float, typer.Option(help="Leave out real targets below this share of the image.")
    ] = 0.003,
    seed: Annotated[int, typer.Option(help="Of the loose boxes.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/interactive"),
) -> None:
    """Play, print the tables, write results.json, results.csv, curves and contact sheets."""
    console = make_console()
    out.mkdir(parents=True, exist_ok=True)
    own = backbones.load(backbone, checkpoint, device)
    others = [backbones.load(name, device=device) for name in filter(None, beside.split(","))]
    rows: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    left_out: dict[str, Any] = {}
    for spec in cases or ["phantoms", "samples"]:
        source = choose_cases(spec, split, limit, min_area)
        chosen, left_out[spec] = list(source), source.left_out
        with console.status(f"{backbone} on {spec}") as status:
            tracks = play_all(own, others, chosen, num_envs, device, seed, status.update)
        title = f"{spec}, {split} split, {len(chosen)} cases" + (
            " (synthetic)" if all(case.synthetic for case in chosen) else ""
        )
        rows += (curves := summarise_curves(spec, tracks, chosen, STEPS))
        gaps += (between := difference_rows(spec, tracks, chosen, backbone, STEPS))
        console.print(curve_table(curves, title, STEPS))
        console.print(difference_table(between, title))
        if note := left_out_note(source.left_out):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        stem = re.sub(r"\W+", "-", spec.partition("?")[0])
        plot_curves(curves, out / f"curves-{stem}.png", title)
        contact_sheet(best_and_worst(tracks, backbone), out / f"sheet-{stem}.png")
    machine = describe_machine(str(own.device))
    console.print(f"Measured on: {machine}")
    console.print("Oracles are shown the truth. Not for clinical use.")
    results = {
        "machine": machine,
        "settings": {"backbone": backbone, "checkpoint": checkpoint, "split": split, "seed": seed},
        "left_out": left_out,
        "rows": rows,
        "differences": gaps,
    }
    atomic_write(out / "results.json", json.dumps(results, indent=1, allow_nan=False))
    write_csv([{**row, "machine": machine} for row in rows], out / "results.csv")
    console.print(f"wrote results.json, results.csv, curves and contact sheets under {out}")


def choose_cases(spec: str, split: str, limit: int, min_area: float) -> CaseList:
    """Cases with a target, real ones of at least `min_area` of their image.

    Returns:
        At most `limit` cases; `left_out` counts those passed over on the way to them.

    Raises:
        MedSegError: None is left.
    """
    source = load_cases(spec, split)
    chosen: list[Case] = []
    passed = 0
    for index in range(len(source)):
        case = source[index]
        if case.mask.any() and (case.synthetic or case.area_fraction >= min_area):
            chosen.append(case)
        else:
            passed += 1
        if len(chosen) == limit:
            break
    if not chosen:
        raise MedSegError(f"no case of {spec!r} ({split}) covers {min_area:.2%} of its image")
    reason = f"cases of this split without a target of {min_area:.2%} of the image (--min-area)"
    left_out = {**source.left_out, **({reason: passed} if passed else {})}
    return CaseList(chosen, name=source.name, split=split, left_out=left_out)


def play_all(
    own: Backbone,
    others: Sequence[Backbone],
    cases: Sequence[Case],
    num_envs: int,
    device: str,
    seed: int,
    report: Any,
) -> list[Track]:
    """Every backbone and control in every way it is asked for."""
    source = CaseList(list(cases))
    ellipse = backbones.load("ellipse", device=device)
    tracks = []

    def play(backbone: Any, way: str, note: str = "", same: Track | None = None) -> Track:
        report(f"{backbone.name}: {way}")
        envs = make_envs(num_envs, cases=source, backbone=backbone, max_steps=STEPS, device=device)
        codec = envs.codec
        policy: Policy = (
            SamePrompts(codec, same.played) if same else annotators.make(WAYS[way], codec)
        )
        played = [p for batch in play_cases(envs, policy, source.keys, seed) for p in batch]
        envs.close()
        tracks.append(Track(backbone.name, way, tuple(played), note))
        return tracks[-1]

    elsewhere = OtherImage(own, cases)
    for way in WAYS:
        first = play(own, way)
        play(elsewhere, way, "control: same prompts, another image", first)
        play(ellipse, way, "control: never sees the image")
        if way != "clicks":
            for other in others:
                play(other, way, "boxes only" if "point" not in other.trained_kinds else "")
    return tracks


def best_and_worst(tracks: Sequence[Track], backbone: str) -> list[tuple[str, Any]]:
    """Rows of the contact sheet: by final Dice the best, the middle and the worst, both ways."""
    rows = []
    for track in tracks:
        if track.backbone != backbone or track.way == "loose box":
            continue
        final = track.dice(STEPS)
        order = sorted(range(len(final)), key=final.__getitem__)
        count = len(order)
        places = {"best": count - 1, "upper quarter": 3 * count // 4, "middle": count // 2}
        places |= {"lower tenth": count // 10, "worst": 0}
        rows += [
            (f"{track.way}: {label}", track.played[order[place]].episode)
            for label, place in places.items()
        ]
    return rows


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
