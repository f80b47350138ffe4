"""Training on own cases and an own reward, and going on with it."""

from __future__ import annotations

import json

from workplace import Workplace

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


@step("eval of what was trained")
def check_trained(place: Workplace) -> None:
    place.medseg("eval", "--policy", "sb3:runs/ppo", "--cases", "./cases.py:Squares", *SMALL,
                 "--out", "out/trained")  # fmt: skip
