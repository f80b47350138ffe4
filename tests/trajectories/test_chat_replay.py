"""Exports for fine-tuning hold what the chat environment shows, to the pixel."""

import io

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import medseg_gym  # noqa: F401
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.trajectories import TrajectoryError, TrajectoryStore, VectorRecorder, export_store


@pytest.mark.parametrize(
    "chat",
    [
        {"image_size": 40},
        {"image_size": 24, "texts": "terse", "overlay": "outline", "overlay_strength": 0.8},
    ],
    ids=["full", "terse"],
)
def test_an_exported_chat_replayed_shows_the_same(chat, make_store, small_cases, tmp_path):
    store = TrajectoryStore(make_store())
    file = tmp_path / "chat.parquet"
    export_store(store, file, chat=ChatOptions.from_arguments(chat), cases=list(small_cases))
    rows = pq.read_table(file).to_pylist()
    env = gym.make("MedSegChat-v0", backbone="ellipse", cases=small_cases, **chat).unwrapped
    compared = 0
    for row in rows:
        observation, _ = env.reset(options={"case": row["case"]})
        images = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in row["images"]]
        system = len(row["messages"]) % 2
        turns = row["messages"][system:]
        for user, assistant, image in zip(turns[::2], turns[1::2], images, strict=True):
            assert [part["type"] for part in user["content"]] == ["image", "text"]
            assert user["content"][1]["text"] == observation["text"]
            np.testing.assert_array_equal(image, observation["image"])
            observation, *_ = env.step(assistant["content"][0]["text"])
            compared += 1
        shown = [
            {**m, "content": [{"text": None, **part} for part in m["content"]]}
            for m in env.messages()
        ]
        assert shown == row["messages"]
        for image, other in zip(images, env.images(), strict=True):
            np.testing.assert_array_equal(image, other)
    assert compared == sum(len(one.steps) for one in store) > 50


def test_conversations_are_recorded_and_exported(small_cases, tmp_path):
    options = {"cases": small_cases, "backbone": "ellipse", "image_size": 24}
    envs = gym.make_vec("MedSegChat-v0", num_envs=2, **options)
    envs = VectorRecorder(envs, tmp_path / "s", seed=0, policy="random")
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(20):
        envs.step(envs.action_space.sample())
    envs.step([None, None])
    envs.close()
    store = TrajectoryStore(tmp_path / "s")
    assert len(store) > 3 and next(iter(store)).facts.options["view"] == "chat"
    chat = ChatOptions(image_size=24)
    result = export_store(store, tmp_path / "c", chat=chat, cases=list(small_cases))
    assert result.rows + result.unreadable == len(store) and result.rows


def test_a_tool_that_the_chat_has_not_is_named(make_store, small_cases, tmp_path):
    chat = ChatOptions(tools=("box", "stop"))
    with pytest.raises(TrajectoryError, match=r"uses the tool '.*', which is not among"):
        export_store(
            TrajectoryStore(make_store()), tmp_path / "c", chat=chat, cases=list(small_cases)
        )
