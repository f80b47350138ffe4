import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from medseg_gym import annotators
from medseg_gym.cli.main import main
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.trajectories import (
    GenerateOptions,
    TrajectoryError,
    TrajectoryStore,
    TrajectoryWriter,
    generate_episodes,
)
from medseg_gym.trajectories.export.summary import summarise_store

OPTIONS = {"cases": "phantoms:chest", "backbone": "ellipse", "limit": 10, "num_envs": 4}


def contents(path):
    return {one.key: (one.facts, one.steps, one.accepted) for one in TrajectoryStore(path)}


def test_every_case_once_per_rollout_and_as_the_policy_plays(tmp_path):
    counted = []
    options = GenerateOptions(**OPTIONS, rollouts=2, seed=3)
    store = generate_episodes(
        tmp_path / "s", options, lambda *c: counted.append(c), lambda n: counted.append(n)
    )
    assert counted[0] == (20, 0) and sum(counted[1:]) == 20 == len(store)
    assert {(k.seed, k.rollout) for k in store.keys()} == {(3, 0), (3, 1)}
    envs = make_envs(4, cases="phantoms:chest", backbone="ellipse")
    policy = annotators.make("hybrid", envs.codec)
    for batch in play_cases(envs, policy, options.keys(), seed=3):
        for played in batch:
            one = store.episode((played.key, 3, 0))
            assert tuple(one.rewards) == played.rewards
            assert one.accepted == policy.accepts(played.episode)
    summary = summarise_store(store)
    assert summary.episodes == 20 == summary.accepted + summary.filtered
    assert summary.players == ["hybrid on ellipse (oracle, synthetic)"]
    assert sum(summary.lengths.values()) == 20
    assert sum(summary.tools.values()) == sum(len(one.steps) for one in store)


def test_a_store_of_other_settings_is_refused(tmp_path):
    small = {**OPTIONS, "limit": 4}
    before = contents_of(tmp_path / "s", **small)
    for changed in ({"max_steps": 3}, {"annotator": "oracle-box"}, {"reward": "medsam_agent"}):
        with pytest.raises(TrajectoryError, match="other settings"):
            generate_episodes(tmp_path / "s", GenerateOptions(**{**small, **changed}))
    extra = contents_of(tmp_path / "s", **{**small, "seed": 1, "annotator": "oracle-box"})
    assert len(extra) == 8 and before.items() <= extra.items()


def contents_of(path, **options):
    generate_episodes(path, GenerateOptions(**options))
    return contents(path)


@pytest.mark.slow
def test_killed_twice_and_resumed_by_two_workers(tmp_path, monkeypatch, capsys):
    out = tmp_path / "killed"

    def words(workers):
        options = {**OPTIONS, "limit": 40, "workers": workers, "out": out}
        given = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
        return ["trajectories", "generate", *given]

    whole = contents_of(tmp_path / "whole", **{**OPTIONS, "limit": 40})
    for wanted in (3, 15):
        process = subprocess.Popen(
            [sys.executable, "-m", "medseg_gym.cli.main", *words(1)], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "format.json").exists() and len(TrajectoryStore(out)) >= wanted:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = contents(out)
        assert len(kept) >= wanted and kept.items() <= whole.items()
    monkeypatch.setattr(sys, "argv", ["medseg", *words(2)])
    with pytest.raises(SystemExit) as ended:  # the command, in this process
        main()
    printed = capsys.readouterr()
    assert not ended.value.code
    assert "40/40" in printed.err and "hybrid on ellipse (oracle, synthetic)" in printed.out
    assert contents(out) == whole and TrajectoryStore(out).duplicates == 0
    assert not list(out.glob("*.journal")) and not list(out.glob("*.part"))


def test_the_commands(tmp_path):
    from typer.testing import CliRunner

    from medseg_gym.cli.trajectories import trajectories_app

    def call(*arguments):
        return CliRunner().invoke(trajectories_app, list(map(str, arguments)))

    path = tmp_path / "s"
    generate_episodes(path, GenerateOptions(**OPTIONS))
    result = call("replay", path)
    assert result.exit_code == 0 and "steps outside the tolerance" in result.output
    result = call("rescore", path, "--reward", "dice_gain")
    assert "equal in every bit" in result.output and result.exit_code == 0
    result = call("rescore", path, "--reward", "medsam_agent")  # another: nothing should be equal
    assert "equal" not in result.output and " steps" in result.output and result.exit_code == 0
    result = call("rescore", path, "--reward", "medsam_agent", "--json")
    assert len(json.loads(result.stdout)["episodes"]) == 10
    assert call("rescore", path, "--reward", "medsam_agent", "--out", tmp_path / "r").exit_code == 0
    result = call("replay", tmp_path / "r", "--limit", 4)
    assert result.exit_code == 0, result.output
    assert json.loads(call("summary", path, "--json").stdout)["episodes"] == 10
    assert call("show", path, tmp_path / "sheet.png", "-n", 2).exit_code == 0
    result = call("export", path, tmp_path / "chat.parquet")
    assert result.exit_code == 0 and "wrote" in result.output


def test_replay_exits_with_1_where_something_differs(tmp_path):
    from typer.testing import CliRunner

    from medseg_gym.cli.trajectories import trajectories_app

    generate_episodes(tmp_path / "s", GenerateOptions(**{**OPTIONS, "limit": 2}))
    with TrajectoryWriter(tmp_path / "changed") as writer:
        for one in TrajectoryStore(tmp_path / "s"):
            id = writer.begin(one.facts)
            writer.add([(id, replace(step, reward=step.reward + 0.1)) for step in one.steps])
    result = CliRunner().invoke(trajectories_app, ["replay", str(tmp_path / "changed")])
    assert result.exit_code == 1 and "reward differs by 0.1" in result.output


@pytest.mark.parametrize(
    "arguments, what",
    [
        (["replay", "NOWHERE"], "there is no trajectory store at NOWHERE"),
        (["generate", "--out", "OUT", "--cases", "no"], "unknown case spec"),
        (["generate", "--out", "OUT", "--limit", "0"], "limit must be at least 1"),
        (["generate", "--out", "OUT", "--workers", "0"], "workers must be at least 1"),
        (["generate", "--out", "OUT", "--annotator", "no", "--limit", "2"], "unknown policy"),
        (["generate", "--out", "OUT", "--backbone", "no", "--limit", "2"], "unknown backbone"),
        (["rescore", "OUT", "--reward", "no"], "unknown reward"),
        (["export", "OUT", "x", "--format", "no"], "unknown format"),
        (["export", "OUT", "x", "--image-size", "0"], "image_size must be"),
        (["show", "OUT", "x.png"], "no finished episode"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, what, tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    TrajectoryWriter("OUT").close()
    error = refusal("trajectories", *arguments)
    assert what in error and error.count("\n") == 1
