"""Own policies, cases and rewards by name, in every command that takes such things."""

from __future__ import annotations

import json
import subprocess

from workplace import Workplace, surroundings

from steps.arguments import OWN, POLICIES, SMALL
from steps.step import step


def results(place: Workplace, out: str) -> dict:
    return json.loads((place.folder / out / "results.json").read_text(encoding="utf-8"))


@step("compare: own policies, cases and reward by name; table, CSV, JSON, PNG")
def check_compare(place: Workplace) -> None:
    told = place.medseg("compare", "--policies", POLICIES, *OWN, "--backbones", "ellipse",
                        "--out", "out/compare").stdout  # fmt: skip
    assert "synthetic" in told and "bright" in told.lower(), told
    for name in ("results.csv", "results.json", "dice_by_step.png", "overlays.png"):
        assert (place.folder / "out/compare" / name).stat().st_size > 100, name


@step("compare into a pipe that closes: no result is lost")
def check_pipe(place: Workplace) -> None:
    command = [place.program("medseg"), "compare", "--policies", POLICIES, *OWN, "--backbones",
               "ellipse", "--out", "out/piped"]  # fmt: skip
    with subprocess.Popen(command, cwd=place.folder, env=surroundings(place.folder), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as piped:  # fmt: skip
        piped.stdout.readline()
        piped.stdout.close()
        error = piped.stderr.read()
    assert "Traceback" not in error, error
    first, second = (
        (place.folder / out / "results.csv").read_text(encoding="utf-8").splitlines()
        for out in ("out/compare", "out/piped")
    )
    assert len(first) == len(second) > 3


@step("eval: an own policy on own cases with an own reward, in two processes")
def check_eval(place: Workplace) -> None:
    for workers in (1, 2):
        place.medseg("eval", "--policy", "my_pkg.policies:Bright", *OWN, *SMALL, "--workers",
                     workers, "--out", f"out/eval{workers}")  # fmt: skip
    place.medseg("eval", "--policy", "./bright.py:Bright?threshold=150", *OWN, *SMALL,
                 "--out", "out/eval150")  # fmt: skip


@step("compare --runs: two runs side by side")
def check_runs(place: Workplace) -> None:
    told = place.medseg("compare", "--runs", "out/eval1", "out/eval150", "--call-costs", "0.02",
                        "--json", "--out", "out/both").stdout  # fmt: skip
    assert [line["call_cost"] for line in json.loads(told)["stopping"]] == [0.02], told
    for name in ("paired.json", "paired.csv", "cases.csv", "scatter.png"):
        assert (place.folder / "out/both" / name).is_file(), name


@step("run: an own policy on an image")
def check_run(place: Workplace) -> None:
    code = "from PIL import Image; from cases import Squares; Image.fromarray(Squares[0].image)"
    place.python(f"{code}.save('square.png'); Image.fromarray(Squares[0].mask).save('truth.png')")
    place.medseg("run", "square.png", "--target", "bright square", "--policy",
                 "./bright.py:Bright", *SMALL, "--out", "out/run")  # fmt: skip
    assert list((place.folder / "out/run").rglob("*.png"))


@step("trajectories generate: an own annotator; the same command goes on")
def check_trajectories(place: Workplace) -> None:
    words = ("trajectories", "generate", "--annotator", "./bright.py:Bright", *OWN, *SMALL,
             "--out", "out/store")  # fmt: skip
    first = json.loads(place.medseg(*words, "--json").stdout)
    again = json.loads(place.medseg(*words, "--json").stdout)
    assert again == first
    summary = json.loads(place.medseg("trajectories", "summary", "out/store", "--json").stdout)
    assert summary.pop("damaged") == [] and summary == first
    assert (
        summary["episodes"] == summary["unjudged"] + summary["accepted"] + summary["filtered"] == 6
    )
    assert summary["unfinished"] == summary["unscored"] == summary["invalid"] == 0, summary
    assert summary["tools"] == {"box": 6, "stop": 6} and summary["lengths"] == {"2": 6}, summary
    assert summary["dice"] > 0.8 and "bright" in summary["players"][0], summary
    shown = place.medseg("trajectories", "summary", "out/store").stdout
    assert f"{summary['dice']:.4f}" in shown and "2 steps: 6" in shown, shown
