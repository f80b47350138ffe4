"""Training on own cases and an own reward, and going on with it."""

from __future__ import annotations

import json
import subprocess
import time

from workplace import Workplace, surroundings

from steps.arguments import OWN, SMALL
from steps.step import step

TRAIN = (
    *("train", "sb3-ppo", *OWN, *SMALL, "--image-size", "32", "--num-envs", "2", "--pool", "4"),
    *("--rollout", "8", "--minibatch", "8", "--steps", "32", "--eval-every", "0"),
    *("--checkpoint-every", "16", "--test-cases", "2", "--out", "runs/ppo"),
)


@step("train sb3-ppo on own cases and reward")
def check_train(place: Workplace) -> None:
    place.medseg(*TRAIN)
    config = json.loads((place.folder / "runs/ppo/config.json").read_text(encoding="utf-8"))
    assert "final_iou" in json.dumps(config)


@step("resume with nothing but --resume; more steps; what contradicts the run is named")
def check_resume(place: Workplace) -> None:
    resume = ("train", "sb3-ppo", "--out", "runs/ppo", "--resume")
    place.medseg(*resume)
    place.medseg(*resume, "--extend", 16)
    error = place.medseg(*resume, "--rollout", 4, code=2).stderr
    assert "rollout" in error and "8" in error and "4" in error, error


@step("a run that is killed goes on with nothing but --resume; wrong names claim no folder")
def check_killed(place: Workplace) -> None:
    for name, wrong in (("--reward", "./reward.py:final_io"), ("--cases", "./cases.py:Square")):
        error = place.medseg(*TRAIN, "--out", "runs/killed", name, wrong, code=2).stderr
        assert "did you mean" in error, error
    words = [*TRAIN, "--out", "runs/killed", "--reward", "./holding.py:final_iou"]
    held = place.folder / "held"
    with subprocess.Popen([place.program("medseg"), *words], cwd=place.folder,
                          env=surroundings(place.folder), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        while not held.exists():
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
        process.kill()
    steps = place.folder / "runs/killed/checkpoints"
    assert [file.name for file in steps.iterdir()] == ["step-000000016"]
    place.medseg("train", "sb3-ppo", "--out", "runs/killed", "--resume")
    names = sorted(file.name for file in steps.iterdir())
    assert names == ["step-000000016", "step-000000032"], names


@step("eval of what was trained")
def check_trained(place: Workplace) -> None:
    place.medseg("eval", "--policy", "sb3:runs/ppo", "--cases", "./cases.py:Squares", *SMALL,
                 "--out", "out/trained")  # fmt: skip
