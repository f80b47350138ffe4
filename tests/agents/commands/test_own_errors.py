"""Errors inside what a user wrote: the user's own lines, and none of the package's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

START = "import sys\nif __name__ == '__main__': from medseg_gym.cli.main import main; main()"
EVAL = ["eval", "--backbone", "ellipse", "--out", "e"]
CASES, POLICY = ["--cases", "cases.py:Squares"], ["--policy", "oracle-click"]


def told(code: int, stderr: str) -> tuple[int, str]:
    """Return the exit code and what was said of the error."""
    assert code and "Traceback" not in stderr, stderr
    return code, stderr[stderr.index("error: ") :]


def fail(*arguments: object) -> tuple[int, str]:
    """Run the program."""
    command = [sys.executable, "-c", START, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return told(done.returncode, done.stderr)


@pytest.fixture
def fail_here(own_folder, monkeypatch, capsys):
    """Run the program in this process."""
    from medseg_gym.cli.main import main

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return told(int(ended.value.code or 0), capsys.readouterr().err)

    return run


def own_lines(message: str) -> list[str]:
    """Files and functions of the traceback."""
    places = [line for line in message.splitlines()[1:] if ":" in line and " in " in line]
    return [f"{Path(p.split(':')[0]).name} {p.rsplit(' in ', 1)[1]}" for p in places]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_that_fails(own_folder, fail_here, workers) -> None:
    arguments = ["--policy", "failing.py:Act", *CASES, "--workers", workers, "--num-envs", 3]
    code, message = (fail_here if workers == 1 else fail)(*EVAL, *arguments)
    assert code == 1 and "in divide: ZeroDivisionError: division by zero" in message
    assert own_lines(message) == ["failing.py act", "failing.py divide"]
    assert message.startswith(f"error: {own_folder / 'failing.py'}, line 10")


@pytest.mark.slow
def test_a_policy_that_fails_on_a_cluster(own_folder) -> None:
    pytest.importorskip("ray")
    arguments = ["--policy", "failing.py:Act", *CASES, "--ray", "local", "--workers", "1"]
    code, message = fail(*EVAL, *arguments)
    assert code == 1 and "in divide: ZeroDivisionError: division by zero" in message
    assert own_lines(message) == ["failing.py act", "failing.py divide"]


@pytest.mark.parametrize(
    ("arguments", "words", "lines"),
    [
        ([*CASES, "--reward", "failing:reward"], "in term: AttributeError", ["reward", "term"]),
        (["--cases", "failing:Torn"], "No such file or directory: 'gone-0.png'", ["__getitem__"]),
    ],
)
def test_a_reward_and_cases_that_fail(fail_here, arguments, words, lines) -> None:
    code, message = fail_here(*EVAL, *POLICY, *arguments)
    assert code == 1 and words in message
    assert own_lines(message) == [f"failing.py {line}" for line in lines]


REFUSED = [
    ([*CASES, "--policy", "failing:Short"], "act returned list for 8 slots"),
    ([*CASES, "--policy", "failing:Reset"], "cannot be called as reset(slots, generators)"),
    ([*CASES, "--policy", "failing:Nameless"], "has no name and no sees_truth"),
    ([*CASES, *POLICY, "--reward", "failing:nan"], "value is nan, which is no finite number"),
    ([*CASES, *POLICY, "--reward", "failing:Uncalled"], "of the type Uncalled"),
    ([*CASES, *POLICY, "--reward", "failing:BadCall"], "cannot be called as reward(episode)"),
    ([*POLICY, "--cases", "failing:Other"], "gave case 'square-0' for the key 'square-1'"),
    ([*POLICY, "--cases", "failing:NoCase"], "gave a NoneType"),
    ([*POLICY, "--cases", "failing:NoKeys"], "a list of texts is wanted"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_does_not_fit_is_refused(medseg, own_folder, arguments, words) -> None:
    from medseg_gym.errors import MedSegError

    with pytest.raises(MedSegError) as refused:
        medseg(*EVAL, *arguments)
    assert words in str(refused.value)


def test_a_reward_may_be_a_number_alone(medseg, own_folder) -> None:
    medseg(*EVAL, *CASES, *POLICY, "--reward", "rewarding:plain_iou")
    assert Path("e/summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runners", "reward", "words"),
    [
        (0, "failing:reward", "in term: AttributeError"),
        (1, "failing:reward", "in term: AttributeError"),
        (1, "failing:nan", "value is nan"),
    ],
)
def test_a_runner_of_ray_tells_it(own_folder, runners, reward, words) -> None:
    pytest.importorskip("ray")
    arguments = [*CASES, "--reward", reward, "--backbone", "ellipse", "--steps", "32",
                 "--num-envs", "4", "--rollout", "8", "--minibatch", "32", "--epochs", "1",
                 "--eval-every", "0", "--test-cases", "0", "--pool", "6"]  # fmt: skip
    code, message = fail("train", "rllib-ppo", *arguments, "--env-runners", runners, "--out", "run")
    assert words in message
    if reward == "failing:reward":
        assert code == 1 and own_lines(message) == ["failing.py reward", "failing.py term"]


CHAT = ["--model", "tiny", "--groups", "2", "--num-generations", "2", "--iterations", "1",
        "--max-steps", "2", "--max-completion-length", "8", "--micro-batch", "4",
        "--eval-cases", "2", "--eval-every", "1"]  # fmt: skip
ARRAYS = ["--steps", "32", "--num-envs", "4", "--rollout", "8", "--minibatch", "32", "--epochs",
          "1", "--eval-cases", "2", "--test-cases", "0", "--pool", "6", "--image-size",
          "32"]  # fmt: skip
SAVED = ["--model", "tiny", "--steps", "1", "--save-every", "1", "--batch-size", "1", "--device",
         "cpu", "--play-count", "2", "--play-backbone", "ellipse"]  # fmt: skip
VALIDATING = {
    "dagger": [*[word for word in ARRAYS if word not in ("--epochs", "1")], "--eval-every", "32"],
    "sb3-ppo": [*ARRAYS, "--eval-every", "32"],
    "rllib-ppo": [*ARRAYS, "--eval-every", "32", "--env-runners", "0"],
    "rllib-ppo in a runner": [*ARRAYS, "--eval-every", "0", "--env-runners", "0",
                              "--eval-runners", "1"],
    "grpo": [*CHAT, "--env-runners", "0"],
    "grpo in a runner": [*CHAT, "--env-runners", "1"],
    "sft": [*SAVED, "--trajectories", "episodes.parquet"],
    "dpo": [*SAVED, "--pairs", "pairs.parquet"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", VALIDATING)
def test_validation_that_fails_while_a_run_trains(name, own_folder, medseg) -> None:
    trainer = name.split()[0]
    if trainer != "dagger":
        pytest.importorskip("stable_baselines3" if trainer == "sb3-ppo" else "ray")
    arguments = [*VALIDATING[name], "--log-to", ""]
    if trainer in ("grpo", "sft", "dpo"):
        from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

        small = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=1)
        build_tiny("tiny", ["bright square, 5 calls.", "3 left."], small)
    if trainer in ("sft", "dpo"):
        for annotator in ("bright:Bright", "centre-box"):
            medseg("trajectories", "generate", "--annotator", annotator, "--seed",
                   len(annotator), *CASES, "--limit", "2",
                   "--backbone", "ellipse", "--out", "store")  # fmt: skip
        view = ("--image-size", "64", "--texts", "terse")
        medseg("trajectories", "export", "store", "episodes.parquet", *view)
        medseg("trajectories", "pairs", "store", "pairs.parquet", "--margin", "0.001", *view)
        arguments += ["--play-cases", "failing:in_validation"]
    else:
        arguments += ["--cases", "failing:in_validation", "--backbone", "ellipse"]
        arguments += ["--image-size", "64"] if trainer == "grpo" else []
    code, message = fail("train", trainer, *arguments, "--out", "run")
    assert code == 1 and "gone-" in message and "No such file" in message
    assert own_lines(message) == ["failing.py __getitem__"]
    assert message.startswith(f"error: {own_folder / 'failing.py'}, line ")
