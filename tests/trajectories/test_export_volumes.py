"""Recorded volumes as conversations: what `MedSegVolumeChat-v0` shows, word for word."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg_gym.annotators import make
from medseg_gym.cases import Case, VolumeCase
from medseg_gym.cli.trajectories import trajectories_app
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.volumes import VolumeChatOptions
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt, encode_volume_call
from medseg_gym.trajectories import (
    TrajectoryError,
    TrajectoryStore,
    TrajectoryWriter,
    VectorRecorder,
    export_store,
)
from medseg_gym.trajectories.export.export import read_chat_env, read_chat_view

BOX = AddBox(0.2005, 0.2005, 0.5005, 0.6005)
PROMPTS = [
    SlicePrompt(2, BOX),
    Propagate(),
    Look(0),
    SlicePrompt(4, AddPoint(0.3005, 0.5005, positive=False)),
    Look(99),
    Undo(),
    Clear(),
    SlicePrompt(3, BOX),
    Stop(),
]
SHOWN = {"image_size": 36, "overview_size": 16}


def volumes() -> list[VolumeCase]:
    made = []
    for number, shape in enumerate([(7, 24, 30), (9, 20, 21)]):
        mask = np.zeros(shape, bool)
        mask[2:6, 6:14, 5:12] = True
        noise = np.random.default_rng(number).integers(0, 30, shape)
        made.append(
            VolumeCase(f"v{number}", (noise + 150 * mask).astype(np.uint8), mask, "organ", "CT")
        )
    return made


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A store of two played conversations, and what the environment showed in each turn."""
    path, cases = tmp_path_factory.mktemp("played") / "store", volumes()
    envs = make_envs(
        2, "MedSegVolumeChat-v0", cases=cases, backbone="ellipse", max_steps=12, **SHOWN
    )
    recorder = VectorRecorder(envs, path, seed=0, policy="by hand")
    observations, _ = recorder.reset(options={"case": [case.key for case in cases]})
    turns = [[], []]
    for prompt in PROMPTS:
        for slot in range(2):
            turns[slot].append(envs.view.row(observations, slot))
        observations, *_ = recorder.step([encode_volume_call(prompt)] * 2)
    messages = [envs.messages(slot) for slot in range(2)]
    recorder.close()
    return TrajectoryStore(path), cases, turns, messages


def read(file, format):
    """Messages and decoded images of every row."""
    if format == "jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        images = [[base64.b64decode(one) for one in row["images"]] for row in rows]
    else:
        rows = pq.read_table(file).to_pylist()
        images = [[one["bytes"] for one in row["images"]] for row in rows]
    decoded = [[np.asarray(Image.open(io.BytesIO(one))) for one in row] for row in images]
    return rows, decoded


@pytest.mark.parametrize("format", ["chat-parquet", "jsonl"])
@pytest.mark.parametrize("overlay", ["fill", "outline"])
def test_an_export_is_what_the_environment_shows_turn_by_turn(played, format, overlay, tmp_path):
    store, cases, turns, messages = played
    file = tmp_path / "chat"
    chat = VolumeChatOptions(**SHOWN, overlay=overlay)
    assert export_store(store, file, format, chat, cases=cases).rows == 2
    rows, images = read(file, format)
    for slot, (row, shown) in enumerate(zip(rows, images, strict=True)):
        words = [
            (message["role"], [part.get("text") for part in message["content"]])
            for message in row["messages"]
        ]
        assert words == [
            (message["role"], [part.get("text") for part in message["content"]])
            for message in messages[slot]
        ]
        asked = [message for message in row["messages"] if message["role"] == "user"]
        assert len(shown) == 2 * len(asked) == 2 * len(PROMPTS)
        for turn, (message, seen) in enumerate(zip(asked, turns[slot], strict=True)):
            assert [part["type"] for part in message["content"]] == ["image", "image", "text"]
            assert message["content"][2]["text"] == seen["text"]
            if overlay == "fill":  # as it was played
                np.testing.assert_array_equal(shown[2 * turn], seen["image"])
                np.testing.assert_array_equal(shown[2 * turn + 1], seen["overview"])
    if format == "chat-parquet":
        view = read_chat_view(file)
        assert read_chat_env(file) == "MedSegVolumeChat-v0"
        assert view["overview_size"] == 16 and view["overlay"] == overlay


def test_options_of_images_formats_of_images_and_mixed_stores_are_refused(played, tmp_path):
    store, cases, *_ = played
    with pytest.raises(TrajectoryError, match=r"of volumes.*those of MedSegChat-v0.*VolumeChatO"):
        export_store(store, tmp_path / "a", chat=ChatOptions(), cases=cases)
    with pytest.raises(TrajectoryError, match="verl-parquet holds one image"):
        export_store(store, tmp_path / "a", "verl-parquet", cases=cases)
    path = tmp_path / "mixed"
    square = np.zeros((16, 16), bool)
    square[4:9, 4:9] = True
    image = Case("i", np.zeros((16, 16, 3), np.uint8), square, "square", "CT")
    for env_id, some, who in (
        ("MedSegVolume-v0", cases[:1], "stop"),
        ("MedSeg-v0", [image], "stop"),
    ):
        envs = make_envs(1, env_id, cases=some, backbone="ellipse")
        with TrajectoryWriter(path) as writer:
            policy = make(who, envs.codec)
            recorder = VectorRecorder(envs, writer, seed=1, policy=policy)
            list(play_cases(recorder, policy, [some[0].key]))
            recorder.close()
    with pytest.raises(TrajectoryError, match="of images and of volumes"):
        export_store(TrajectoryStore(path), tmp_path / "a", cases=cases)


def test_the_command_exports_volumes(tmp_path):
    def call(*words):
        done = CliRunner().invoke(trajectories_app, list(map(str, words)))
        assert done.exit_code == 0, (done.output, done.exception)

    store, file = tmp_path / "store", tmp_path / "chat.parquet"
    play = ("--env", "MedSegVolume-v0", "--cases", "phantoms-volume", "--backbone", "ellipse")
    who = ("--annotator", "oracle-key-slice", "--limit", 2, "--num-envs", 2)
    call("generate", *play, *who, "--out", store)
    call("export", store, file, "--image-size", 48, "--overview-size", 32, "--texts", "terse")
    rows, images = read(file, "chat-parquet")
    assert len(rows) == 2 and read_chat_env(file) == "MedSegVolumeChat-v0"
    assert [image.shape for image in images[0][:2]] == [(48, 48, 3), (32, 96, 3)]
    calls = [m["content"][0]["text"] for m in rows[0]["messages"] if m["role"] == "assistant"]
    assert ["add_bbox" in calls[0], "propagate_action" in calls[1], "stop_action" in calls[2]] == (
        [True] * 3
    )
