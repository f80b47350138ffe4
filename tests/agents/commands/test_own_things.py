"""A user's own things work by name in every command that takes such things."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_gym.errors import MedSegError

POLICIES = ["my_pkg.policies:Bright", "./bright.py:Bright?threshold=130", "bright:Bright"]
CASES = ["./cases.py:Squares", "cases:squares", "cases.py:Squares?level=100"]
REWARDS = ["./rewarding.py:final_iou", "rewarding:final_iou?weight=2",
           "dice_gain + 0.5 * ./rewarding.py:final_iou"]  # fmt: skip
PLAY = ["--backbone", "ellipse"]


@pytest.mark.parametrize(
    ("policy", "cases", "reward"), list(zip(POLICIES, CASES, REWARDS, strict=True))
)
def test_eval(medseg, own_folder, policy, cases, reward) -> None:
    medseg("eval", "--policy", policy, "--cases", cases, "--reward", reward, *PLAY, "--out", "e",
           "--filmstrips", "2")  # fmt: skip
    lines = [json.loads(line) for line in Path("e/records.jsonl").read_text().splitlines()]
    assert lines[0]["settings"]["reward"] == reward
    for record in lines[1:]:
        final, weight = record["iou"][-1], 2 if "weight" in reward else 1
        if "+" not in reward:
            assert record["episode_return"] == pytest.approx(weight * final)
    for name in ("overlays.png", "filmstrips.png"):
        assert Path("e", name).stat().st_size > 1000


def test_compare(medseg, own_folder) -> None:
    medseg("compare", "--policies", ",".join([*POLICIES, "oracle-click"]), "--cases", CASES[0],
           "--reward", REWARDS[0], "--backbones", "ellipse", "--out", "c")  # fmt: skip
    results = json.loads(Path("c/results.json").read_text())
    assert len(results["rows"]) == 4 and all(row["n"] == 6 for row in results["rows"])
    assert all(row["episode_return"] == pytest.approx(row["iou"]) for row in results["rows"])
    for name in ("results.csv", "dice_by_step.png", "calls_used.png", "overlays.png"):
        assert Path("c", name).stat().st_size > 100


@pytest.mark.parametrize("policy", POLICIES)
def test_run(medseg, own_folder, policy) -> None:
    medseg("run", "image.png", "--mask", "mask.png", "--target", "square", "--policy", policy,
           "--reward", REWARDS[0], *PLAY, "--out", "r")  # fmt: skip
    record = json.loads(Path("r/record.json").read_text())
    assert record["steps"][-1]["reward"] == pytest.approx(record["iou"])


def test_trajectories(medseg, own_folder) -> None:
    medseg("trajectories", "generate", "--annotator", POLICIES[1], "--cases", CASES[0],
           "--reward", REWARDS[0], *PLAY, "--out", "t")  # fmt: skip
    printed = medseg("trajectories", "rescore", "t", "--reward", REWARDS[1], "--json")
    first = json.loads(printed)["episodes"][0]
    assert sum(first["rewards"]) > 0


@pytest.mark.parametrize("cases", CASES)
def test_cases_check(medseg, own_folder, cases) -> None:
    assert "no defects" in medseg("cases", "check", cases)


@pytest.mark.slow
def test_own_things_reach_worker_processes(own_folder) -> None:
    """Through the installed program, which does not look for modules in the current folder."""
    program = "from medseg_gym.cli.main import main; main()"
    start = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    command = [*start, "-c", f"import sys\nif __name__ == '__main__': {program}", "eval"]
    command += ["--policy", POLICIES[0], "--cases", CASES[0], "--reward", REWARDS[1], *PLAY]
    command += ["--workers", "2", "--num-envs", "3", "--out", "w"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(Path("w/records.jsonl").read_text().splitlines()) == 7


SHARED = {
    "eval": ["eval", "--policy", POLICIES[1], *PLAY],
    "compare": ["compare", "--policies", f"{POLICIES[0]},{POLICIES[1]},stop", "--backbones",
                "ellipse"],
    "generate": ["trajectories", "generate", "--annotator", POLICIES[1], *PLAY],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("crew", [["--workers", "2"], ["--workers", "2", "--ray", "local"]])
@pytest.mark.parametrize("name", SHARED)
def test_own_things_are_shared_out(own_folder, medseg, name, crew) -> None:
    """Through the installed program, which does not look for modules in the current folder."""
    if "--ray" in crew:
        pytest.importorskip("ray")
    words = [*SHARED[name], "--cases", CASES[0], "--reward", REWARDS[1], "--num-envs", "3"]
    start = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    program = "import sys\nif __name__ == '__main__': from medseg_gym.cli.main import main; main()"
    command = [*start, "-c", program, *words, *crew, "--json", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout)
    printed = medseg(*words, "--json", "--out", "y")
    alone = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])  # less its bars
    if name == "generate":
        assert shared["episodes"] == 6 and shared["dice"] == alone["dice"]
    else:
        keys = ("policy", "n", "dice", "episode_return")
        rows = [[{key: row[key] for key in keys} for row in one["rows"]] for one in (shared, alone)]
        assert rows[0] == rows[1] and rows[0][0]["dice"] > 0.8


WRONG = [
    (["--policy", "my_pkg.polices:Bright"], "did you mean 'my_pkg.policies'"),
    (["--policy", "my_pgk.policies:Bright"], "(did you mean 'my_pkg'?); looked in the current"),
    (["--policy", "./brigth.py:Bright"], "did you mean 'bright.py'?); that folder holds"),
    (["--policy", "bright.py:Brigth"], "did you mean 'Bright'?); it holds: Bright, NUMBER"),
    (["--policy", "./bright.py"], "a policy in a file is named ./bright.py:NAME"),
    (["--policy", "my_pkg.policies.Bright"], "is named my_pkg.policies:Bright"),
    (["--policy", "bright:no_codec"], "cannot be called as factory(codec, **options)"),
    (["--policy", "bright:NUMBER"], "of the type int; factory(codec, **options) is wanted"),
    (["--policy", "bright:Bright?treshold=1"], "did you mean 'threshold'"),
    (["--policy", "broken.py:X"], "'nothing_of_that_name' (line 1 of"),
    (["--cases", "cases:Keyless"], "abstract"),
    (["--cases", "cases.py:failing"], "'Case' object has no attribute 'nothing' (line"),
    (["--cases", "cases.py:Squares?lvel=3"], "did you mean 'level'"),
    (["--reward", "rewarding.py:no_episode"], "cannot be called as reward(episode, **options)"),
    (["--reward", "rewarding.py:final_uoi"], "did you mean 'final_iou'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_a_wrong_name_is_answered(medseg, own_folder, arguments, words) -> None:
    with pytest.raises(MedSegError) as refused:
        medseg("eval", *PLAY, "--limit", "1", "--out", "x", *arguments)
    assert words in str(refused.value)


TRAIN = ["--cases", CASES[0], "--reward", REWARDS[1], *PLAY, "--steps", "32", "--num-envs", "4",
         "--rollout", "8", "--minibatch", "32", "--epochs", "1", "--eval-every", "0",
         "--test-cases", "0", "--pool", "6", "--out", "run"]  # fmt: skip


@pytest.mark.slow
def test_train_dagger(medseg, own_folder) -> None:
    arguments = [word for word in TRAIN if word not in ("--epochs", "1")]
    view = ("--bins", "1000", "--tools", "box,positive_point,negative_point,undo,clear,stop")
    medseg("train", "dagger", *arguments, *view, "--annotator", "bright:Bright", "--updates", "2")
    assert list(Path("run/checkpoints").glob("step-*"))


@pytest.mark.slow
def test_train_sb3(medseg, own_folder) -> None:
    pytest.importorskip("stable_baselines3")
    medseg("train", "sb3-ppo", *TRAIN)
    assert list(Path("run/checkpoints").glob("step-*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rllib-ppo", "grpo", "chat-ppo"])
def test_train_on_ray(own_folder, kind) -> None:
    """In a program of its own, with a runner that is another process."""
    pytest.importorskip("ray")
    arguments = [*TRAIN, "--env-runners", "1"]
    if kind != "rllib-ppo":
        from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

        small = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=2)
        build_tiny("tiny", ["bright square, 5 calls.", "3 left."], small)
        sizes = (
            ["--groups", "2", "--num-generations", "2"]
            if kind == "grpo"
            else ["--groups", "4", "--minibatches", "1"]
        )
        arguments = ["--model", "tiny", "--cases", CASES[0], "--reward", REWARDS[2], *PLAY, *sizes,
                     "--iterations", "1", "--eval-every", "0", "--max-steps", "2",
                     "--max-completion-length", "8", "--micro-batch", "4", "--image-size", "64",
                     "--env-runners", "1", "--out", "run"]  # fmt: skip
    command = [sys.executable, "-m", "medseg_gym.cli.main", "train", kind, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert list(Path("run/checkpoints").glob("step-*"))
