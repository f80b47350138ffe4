"""Episodes on volumes are recorded, replayed and re-scored like those on images."""

from __future__ import annotations

import io

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg_gym.cases import VolumeCase
from medseg_gym.cli.trajectories import trajectories_app
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.volumes import VolumeChatOptions
from medseg_gym.episodes.volumes import PropagationOptions
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt
from medseg_gym.trajectories import (
    Recorder,
    TrajectoryError,
    TrajectoryStore,
    VectorRecorder,
    export_pairs,
    rebuild_episode,
    rebuild_volume_episode,
    replay_store,
    rescore_store,
)
from medseg_gym.trajectories.export.contact_sheet import show_store
from medseg_gym.trajectories.export.export import read_chat_env
from medseg_gym.trajectories.store import folder
from medseg_gym.trajectories.store.rows import SCHEMA

BOX = AddBox(0.2, 0.2, 0.7, 0.8)
PROMPTS = [
    SlicePrompt(2, BOX),
    Propagate(),
    SlicePrompt(5, AddPoint(0.5, 0.5, positive=False)),
    Look(1),
    Propagate(),
    Undo(),
    SlicePrompt(3, AddBox(0.5, 0.5, 0.5, 0.5)),
    SlicePrompt(4, BOX),
    Clear(),
    SlicePrompt(2, AddPoint(0.4, 0.5)),
    Stop(),
]


def volumes():
    made = []
    for number, shape in enumerate([(7, 24, 30), (8, 32, 32), (9, 20, 21)]):
        rng = np.random.default_rng(number)
        mask = np.zeros(shape, bool)
        mask[2:6, 6:14, 5:12] = True
        image = (rng.integers(0, 30, shape) + 150 * mask).astype(np.uint8)
        made.append(VolumeCase(f"v{number}", image, mask, "organ", "CT", group=f"p{number}"))
    return made


def record(path, mode="disabled", backbone="ellipse"):
    cases = volumes()
    envs = gym.make_vec(
        "MedSegVolume-v0",
        num_envs=3,
        cases=cases,
        backbone=backbone,
        autoreset_mode=mode,
        max_steps=20,
        slices=9,
    )
    recorder = VectorRecorder(envs, path, seed=3, policy="by hand")
    recorder.reset(options={"case": [case.key for case in cases]})
    for prompt in PROMPTS:
        rows = [envs.unwrapped.codec.encode(prompt, case.depth) for case in cases]
        recorder.step(np.stack(rows))
    recorder.close()
    return TrajectoryStore(path), cases


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_what_is_recorded_is_what_happened(tmp_path, mode):
    store, cases = record(tmp_path / "s", mode)
    assert len(store) == 3
    for trajectory, case in zip(store, cases, strict=True):
        assert trajectory.facts.shape == case.mask.shape and trajectory.facts.depth == case.depth
        np.testing.assert_array_equal(trajectory.truth, case.mask)
        tools = [step.tool for step in trajectory.steps]
        assert tools == [prompt.tool for prompt in PROMPTS]
        assert [step.valid for step in trajectory.steps] == [i != 6 for i in range(len(PROMPTS))]
        assert isinstance(trajectory.prompts[3], Look) and trajectory.prompts[0].slice == 2
        episode = rebuild_volume_episode(trajectory, case)
        for step, mask, recorded in zip(
            episode.steps, trajectory.masks, trajectory.steps, strict=True
        ):
            assert (step.dice, step.iou, step.valid) == (
                recorded.dice,
                recorded.iou,
                recorded.valid,
            )
            assert int(mask.sum()) == step.state.pixels
        assert trajectory.masks[1].any(axis=(1, 2)).sum() > 1 and episode.stopped
        assert trajectory.summary == type(trajectory.summary).of(episode)


@pytest.mark.parametrize("backbone", ["ellipse", "pocket"])
def test_replays_and_rewards_agree(tmp_path, backbone):
    store, cases = record(tmp_path / "s", backbone=backbone)
    replayed = replay_store(store, cases=cases, device="cpu")
    assert (replayed.episodes, replayed.steps) == (3, 3 * len(PROMPTS))
    assert not replayed.mismatches
    if backbone == "ellipse":
        assert replayed.exact == replayed.steps and not replayed.pixels
    for rescored in rescore_store(store, "dice_gain", tmp_path / "again"):
        assert rescored.new.rewards == rescored.old.rewards
    assert len(TrajectoryStore(tmp_path / "again")) == 3
    with pytest.raises(TrajectoryError, match="from cases in memory"):
        replay_store(store)
    changed = [VolumeCase(c.key, 255 - c.image, c.mask, c.target) for c in cases]
    with pytest.raises(TrajectoryError, match="another image"):
        replay_store(store, cases=changed)


def test_a_single_environment_is_recorded_too(tmp_path):
    env = gym.make("MedSegVolume-v0", cases=volumes(), backbone="ellipse", max_steps=2, slices=9)
    recorder = Recorder(env, tmp_path / "s")
    recorder.reset(seed=0, options={"case": "v1"})
    for prompt in PROMPTS[:2]:
        recorder.step(env.unwrapped.codec.encode(prompt, 8))
    recorder.close()
    (trajectory,) = TrajectoryStore(tmp_path / "s")
    assert trajectory.finished and trajectory.steps[-1].tool == "propagate"


def test_a_fork_is_recorded_from_its_first_step(tmp_path):
    envs = VectorRecorder(
        make_envs(2, "MedSegVolume-v0", cases=volumes(), backbone="ellipse", max_steps=3, slices=9),
        tmp_path / "s",
    )
    envs.reset(options={"case": ["v0", "v1"]})
    envs.step(np.stack([envs.codec.encode(PROMPTS[0], 7)] * 2))
    envs.unwrapped.fork([0], [1])
    for prompt in PROMPTS[1:3]:
        envs.step(np.stack([envs.codec.encode(prompt, 7)] * 2))
    envs.close()
    first, second = TrajectoryStore(tmp_path / "s")
    assert [s.tool for s in first.steps] == [s.tool for s in second.steps]
    assert first.steps[0] == second.steps[0] and first.facts.key.case == second.facts.key.case


def test_what_is_for_images_says_so(tmp_path):
    store, _ = record(tmp_path / "s")
    with pytest.raises(TrajectoryError, match=r"'v0' is a volume of 7 slices"):
        rebuild_episode(next(iter(store)))


def test_a_sheet_shows_the_slices_in_view(tmp_path):
    store, cases = record(tmp_path / "s")
    sheet = np.asarray(Image.open(show_store(store, tmp_path / "s.png", 2, cases)).convert("RGB"))
    assert sheet.shape[1] == (2 + len(PROMPTS)) * 206  # image, truth and every step
    tiles = [sheet[:150, left * 206 : left * 206 + 200] for left in (2, 3, 5)]
    assert not np.array_equal(tiles[0], tiles[2])  # the look went to another slice


def test_pairs_are_conversations_of_volumes(tmp_path):
    cases = volumes()[:1]
    tight = PropagationOptions(loosen=0.0, max_shift=9.0, max_drift=9.0)
    options = {"cases": cases, "backbone": "ellipse", "max_steps": 3, "slices": 9}
    envs = make_envs(2, "MedSegVolume-v0", propagation=tight, **options)
    recorder = VectorRecorder(envs, tmp_path / "s")
    recorder.reset(options={"case": ["v0", "v0"]})
    for prompts in (
        [SlicePrompt(2, AddBox(0.17, 0.25, 0.4, 0.58))] * 2,
        [Propagate(), Look(5)],
        [Stop(), Stop()],
    ):
        recorder.step(np.stack([envs.codec.encode(prompt, 7) for prompt in prompts]))
    recorder.close()
    store, file = TrajectoryStore(tmp_path / "s"), tmp_path / "pairs.parquet"
    chat = VolumeChatOptions(image_size=36, overview_size=16)
    counts = export_pairs(store, file, chat=chat, cases=cases)
    (row,) = pq.read_table(file).to_pylist()
    assert (counts.pairs, counts.states, row["turn"]) == (1, 1, 1)
    calls = [row[name][0]["content"][0]["text"] for name in ("chosen", "rejected")]
    assert "propagate_action" in calls[0] and "look_action" in calls[1]
    sizes = [Image.open(io.BytesIO(image["bytes"])).size for image in row["images"]]
    assert sizes == [(36, 36), (48, 16)] * 2
    assert row["score_chosen"] - row["score_rejected"] > 0.02
    assert read_chat_env(file) == "MedSegVolumeChat-v0"
    with pytest.raises(TrajectoryError, match="give VolumeChatOptions"):
        export_pairs(store, file, chat=ChatOptions(), cases=cases)


def test_chunks_of_version_1_are_read(tmp_path, small_cases):
    envs = VectorRecorder(make_envs(1, cases=small_cases, backbone="ellipse"), tmp_path / "s")
    envs.reset(options={"case": "wide"})
    envs.step(np.stack([envs.codec.encode(BOX)]))
    envs.step(np.stack([envs.codec.encode(Stop())]))
    envs.close()
    (chunk,) = (tmp_path / "s").glob("*.parquet")
    table = pq.read_table(chunk).drop_columns(["depth", "slice"])
    chunk.unlink()
    (tmp_path / "s" / folder.MANIFEST).unlink()
    old = {"format": "medseg_gym trajectories", "version": "1"}
    pq.write_table(table.replace_schema_metadata(old), tmp_path / "s" / "old.parquet")
    store = TrajectoryStore(tmp_path / "s")
    (trajectory,) = store
    assert trajectory.facts.depth is None and trajectory.prompts == [BOX_ON_GRID, Stop()]
    assert store.to_table().schema.equals(SCHEMA)
    assert store.to_table(["slice", "tool"])["slice"].to_pylist() == [None, None]
    assert not replay_store(store, cases=small_cases).mismatches


BOX_ON_GRID = AddBox(*((int(v * 1000) + 0.5) / 1000 for v in (0.2, 0.2, 0.7, 0.8)))


def test_the_command_fills_a_store_and_replays_it(tmp_path):
    run = CliRunner().invoke
    out = str(tmp_path / "s")
    arguments = ["generate", "--env", "MedSegVolume-v0", "--cases", "phantoms-volume", "--limit"]
    arguments += ["3", "--annotator", "oracle-key-slice", "--backbone", "ellipse", "--out", out]
    result = run(trajectories_app, [*arguments, "--num-envs", "2"])
    assert result.exit_code == 0, result.output
    store = TrajectoryStore(out)
    assert [key.case for key in store.keys()] == [
        f"phantoms-volume/train/000000-{number}" for number in range(3)
    ]
    for command in (
        ["show", out, str(tmp_path / "s.png")],
        ["replay", out],
        ["rescore", out, "--reward", "dice_gain"],
        ["summary", out],
    ):
        result = run(trajectories_app, command)
        assert result.exit_code == 0, result.output
    assert "oracle-key-slice on ellipse (oracle, synthetic)" in result.output
    with pytest.raises(TrajectoryError, match=r"MedSeg-v0 or MedSegVolume-v0, got 'MedSeg-v1'"):
        run(
            trajectories_app,
            ["generate", "--env", "MedSeg-v1", "--out", out],
            catch_exceptions=False,
        )
