"""Preference pairs from episodes that share a state, and forks that make such episodes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from medseg_gym.cli.main import app
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, Stop, Undo, read_answer
from medseg_gym.trajectories import (
    TrajectoryError,
    TrajectoryStore,
    VectorRecorder,
    export_pairs,
    replay_store,
)
from medseg_gym.trajectories.export.export import read_chat_view

BOX, CLICK = AddBox(0.1, 0.1, 0.9, 0.9), AddPoint(0.5, 0.5, True)
OPTIONS = {"backbone": "ellipse", "image_size": 32, "max_steps": 4}
CHAT = ChatOptions(image_size=24, texts="terse")


@pytest.fixture
def forked(small_cases, tmp_path):
    """A store of one trunk and three forks of it, and one episode on another case."""
    envs = make_envs(5, cases=small_cases, **OPTIONS)
    recorder = VectorRecorder(envs, tmp_path / "store", seed=7)
    stop = envs.codec.encode(Stop())

    def step(*prompts):
        return recorder.step(np.stack([envs.codec.encode(p) for p in prompts]))

    recorder.reset(options={"case": ["wide", "tall", "wide", "wide", "wide"]})
    step(BOX, BOX, Stop(), Stop(), Stop())
    envs.fork([0, 0, 0])  # into the slots that have ended
    step(Stop(), Stop(), CLICK, Undo(), Stop())
    recorder.step(np.stack([stop] * 5))
    recorder.close()
    return tmp_path / "store"


def test_a_fork_is_recorded_from_its_first_step(forked, small_cases):
    store = TrajectoryStore(forked)
    # Three that stopped at once, four that began with the box, one on the other case.
    lengths = sorted(len(one.steps) for one in store if one.key.case == "wide")
    assert lengths == [1, 1, 1, 2, 2, 3, 3]
    assert len(store) == 8 and not list(store.episodes(unfinished=True))
    boxed = [one for one in store if one.key.case == "wide" and len(one.steps) > 1]
    assert len({one.steps[0].mask for one in boxed}) == 1
    assert {one.prompts[0] for one in boxed} == {boxed[0].prompts[0]}
    assert all(one.steps[-1].stopped and one.finished for one in boxed)
    replayed = replay_store(store, cases=list(small_cases))
    assert not replayed.mismatches and replayed.exact == replayed.steps


def test_steps_before_the_recorder_are_not_made_up(small_cases, tmp_path):
    envs = make_envs(2, cases=small_cases, **OPTIONS)
    envs.reset(seed=0)
    click = np.stack([envs.codec.encode(CLICK)] * 2)
    envs.step(click)
    recorder = VectorRecorder(envs, tmp_path / "store", seed=7)
    envs.fork([0], [1])
    recorder.step(click)
    recorder.close()
    store = TrajectoryStore(tmp_path / "store")
    assert not len(store) and not list(store.episodes(unfinished=True))


def test_an_episode_that_a_fork_replaces_is_kept_as_unfinished(small_cases, tmp_path):
    envs = make_envs(2, cases=small_cases, **OPTIONS)
    recorder = VectorRecorder(envs, tmp_path / "store", seed=7)
    recorder.reset(options={"case": ["wide", "tall"]})
    click = np.stack([envs.codec.encode(CLICK)] * 2)
    recorder.step(click)
    envs.fork([0], [1])
    recorder.step(np.stack([envs.codec.encode(Stop())] * 2))
    recorder.close()
    store = TrajectoryStore(tmp_path / "store")
    assert [one.key.case for one in store] == ["wide", "wide"]
    assert [one.key.case for one in store.episodes(unfinished=True)] == ["tall"]


def read(path):
    return pq.read_table(path).to_pylist()


def test_pairs_are_calls_of_one_state_and_the_chosen_one_led_to_more(forked, small_cases, tmp_path):
    store, cases = TrajectoryStore(forked), list(small_cases)
    file = tmp_path / "pairs.parquet"
    counts = export_pairs(store, file, margin=0.005, per_state=9, chat=CHAT, cases=cases)
    rows = read(file)
    assert counts.pairs == len(rows) and counts.alone == 1 and counts.truthless == 0
    # At the start (box or stop), and after the box (click, undo or stop).
    assert counts.states == 2 and {row["turn"] for row in rows} == {0, 1}
    worth = {}
    boxed = next(one for one in store if len(one.steps) > 1)
    for one in store:
        for turn, prompt in enumerate(one.prompts):
            before = tuple(one.prompts[:turn])
            worth.setdefault((one.key.case, before, prompt), []).append(sum(one.rewards[turn:]))
    for row in rows:
        roles = [message["role"] for message in row["prompt"]]
        assert roles == [*["user", "assistant"] * row["turn"], "user"]
        assert len(row["images"]) == 1 + row["turn"]
        assert row["score_chosen"] - row["score_rejected"] >= 0.005
        before = boxed.prompts[: row["turn"]]
        for side in ("chosen", "rejected"):
            ((part,),) = [message["content"] for message in row[side]]
            assert row[side][0]["role"] == "assistant"
            prompt = read_answer(part["text"]).prompt
            values = next(
                v
                for (case, met, action), v in worth.items()
                if case == "wide" and list(met) == before and type(action) is type(prompt)
            )
            assert row[f"score_{side}"] == pytest.approx(np.mean(values))
    assert read_chat_view(file)["texts"] == "terse"
    one = export_pairs(store, file, margin=0.005, chat=CHAT, cases=cases)
    assert one.pairs == 2 and [row["turn"] for row in read(file)] == [0, 1]
    first = max((r for r in rows if r["turn"] == 0), key=lambda r: r["score_chosen"])
    assert read(file)[0]["chosen"] == first["chosen"]


def test_what_is_no_preference_is_refused_with_counts(forked, small_cases, tmp_path):
    store, cases = TrajectoryStore(forked), list(small_cases)
    with pytest.raises(TrajectoryError, match=r"8 episodes, 2 states .* 2 of them worth the same"):
        export_pairs(store, tmp_path / "none", margin=5, cases=cases)
    assert not (tmp_path / "none").exists()
    with pytest.raises(TrajectoryError, match="need margin > 0"):
        export_pairs(store, tmp_path / "none", margin=0, cases=cases)


def test_actions_that_nobody_could_read_are_in_no_pair(make_store, small_cases, tmp_path):
    envs = make_envs(2, "MedSegChat-v0", cases=small_cases, backbone="ellipse", max_steps=2)
    recorder = VectorRecorder(envs, tmp_path / "store", seed=0)
    recorder.reset(options={"case": "wide"})
    call = {"name": "stop_action", "arguments": {}}
    recorder.step([f"<tool_call>{json.dumps(call)}</tool_call>", "what?"])
    recorder.step(["", "what?"])
    recorder.close()
    with pytest.raises(TrajectoryError, match=r"2 episodes, 0 states .* 2 episodes that share no"):
        export_pairs(
            TrajectoryStore(tmp_path / "store"), tmp_path / "pairs", cases=list(small_cases)
        )


def test_the_command_says_what_it_leaves_out(tmp_path):
    store, file = tmp_path / "store", tmp_path / "pairs.parquet"
    runner = CliRunner()
    common = ["--cases", "phantoms:fundus", "--backbone", "ellipse", "--annotator", "random"]
    made = runner.invoke(
        app,
        ["trajectories", "generate", *common, "--limit", "2", "--rollouts", "4", "--out", store],
    )
    assert made.exit_code == 0, made.output
    done = runner.invoke(app, ["trajectories", "pairs", str(store), str(file), "--texts", "terse"])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert f"wrote {len(read(file))} pairs from 2 states" in words and "left out: " in words
