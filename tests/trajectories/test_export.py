import base64
import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import chat_coordinates
from medseg_gym.prompts import encode_tool_call, read_answer
from medseg_gym.trajectories import (
    TrajectoryError,
    TrajectoryStore,
    TrajectoryWriter,
    export_store,
)
from medseg_gym.trajectories.export.contact_sheet import show_store
from medseg_gym.trajectories.export.export import read_chat_view


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def read_chat(path, format):
    if format == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["images"] = [base64.b64decode(image) for image in row["images"]]
        return rows
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["images"] = [image["bytes"] for image in row["images"]]
    return rows


@pytest.mark.parametrize("format", ["chat-parquet", "jsonl"])
def test_chats_say_what_was_played(format, make_store, small_cases, tmp_path):
    store = TrajectoryStore(make_store())
    file = tmp_path / "out" / "chat"
    chat = ChatOptions(image_size=24)
    result = export_store(store, file, format, chat, cases=list(small_cases))
    rows = read_chat(file, format)
    assert result.rows == len(rows) == len(store)
    by_key = {case.key: case for case in small_cases}
    for row, one in zip(rows, store, strict=True):
        messages, case = row["messages"], by_key[one.key.case]
        assert (row["case"], row["rollout"], row["dice"]) == (case.key, one.key.rollout, one.dice)
        expected = ["system", *["user", "assistant"] * len(one.steps)]
        assert [message["role"] for message in messages] == expected
        parts = [part for message in messages for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(row["images"])
        for message in messages[1::2]:
            assert [part["type"] for part in message["content"]] == ["image", "text"]
        calls = [message["content"][0]["text"] for message in messages[2::2]]
        assert [read_answer(call).prompt for call in calls] == one.prompts
        assert case.target in messages[1]["content"][1]["text"]
        images = [decode(image) for image in row["images"]]
        square = Image.fromarray(case.image).resize((24, 24), Image.Resampling.BILINEAR)
        plain = np.asarray(square)
        np.testing.assert_array_equal(images[0], plain)
        at = [((np.arange(24) + 0.5) * n / 24).astype(int) for n in case.mask.shape]
        for shown, mask, step, message in zip(
            images[1:], one.masks, one.steps, messages[3::2], strict=False
        ):
            covered = mask[np.ix_(*at)]
            np.testing.assert_array_equal(shown[~covered], plain[~covered])
            half = (plain[covered] * 0.5 + np.array([40, 220, 90]) * 0.5).astype(np.uint8)
            np.testing.assert_array_equal(shown[covered], half)
            assert step.valid or step.error in message["content"][1]["text"]
    assert json.loads(pq.read_schema(file).metadata[b"huggingface"]) if format != "jsonl" else True


@pytest.mark.parametrize("kind", ["fraction", "pixel"])
def test_chats_are_written_in_the_coordinates_of_their_view(
    kind, make_store, small_cases, tmp_path
):
    store = TrajectoryStore(make_store())
    file = tmp_path / "chat"
    chat = ChatOptions(image_size=128, coordinates=kind)
    export_store(store, file, "chat-parquet", chat, cases=list(small_cases))
    assert read_chat_view(file)["coordinates"] == kind
    coordinates = chat_coordinates(chat)
    for row, one in zip(read_chat(file, "chat-parquet"), store, strict=True):
        assert coordinates.rule in row["messages"][0]["content"][0]["text"]
        calls = [message["content"][0]["text"] for message in row["messages"][2::2]]
        assert calls == [encode_tool_call(prompt, coordinates) for prompt in one.prompts]
        for call, prompt in zip(calls, one.prompts, strict=True):
            assert read_answer(call, coordinates=coordinates).prompt.tool == prompt.tool


def test_verl_rows(make_store, small_cases, tmp_path):
    store = TrajectoryStore(make_store())
    result = export_store(
        store, tmp_path / "v", "verl-parquet", ChatOptions(image_size=16), cases=list(small_cases)
    )
    rows = pq.read_table(tmp_path / "v").to_pylist()
    assert result.rows == len(rows) == 5 and result.repeated == len(store) - 5
    by_key = {case.key: case for case in small_cases}
    for row in rows:
        case = by_key[row["extra_info"]["case"]]
        assert row["extra_info"]["target_description"] == case.target
        truth = decode(row["reward_model"]["ground_truth"]["bytes"])
        np.testing.assert_array_equal(truth > 0, case.mask)
        (image,) = row["images"]
        assert decode(image["bytes"]).shape == (16, 16, 3)
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert row["prompt"][1]["content"].count("<image>") == 1


def test_filtered_and_unreadable_episodes_stay_out(make_store, small_cases, tmp_path):
    path = tmp_path / "judged"
    with TrajectoryWriter(path) as writer:
        for number, one in enumerate(TrajectoryStore(make_store())):
            steps = list(one.steps)
            if number == 0:
                steps[0] = replace(steps[0], prompt=None, valid=False)
            id = writer.begin(one.facts)
            verdicts = [None] * (len(steps) - 1) + [number % 2 == 0]
            writer.add([(id, step) for step in steps], verdicts)
    store = TrajectoryStore(path)
    small = ChatOptions(image_size=24)
    result = export_store(store, tmp_path / "c", chat=small, cases=list(small_cases))
    assert result.unreadable == 1 and result.filtered == len(store) // 2
    assert result.rows == len(store) - result.filtered - 1
    assert pq.read_table(tmp_path / "c").num_rows == result.rows
    sheet = decode(show_store(store, tmp_path / "s.png", 3, list(small_cases)).read_bytes())
    assert sheet.shape[0] > 3 * 100 and sheet.shape[1] > 3 * 240


def test_nothing_half_written_is_left(make_store, small_cases, tmp_path):
    store = TrajectoryStore(make_store())
    with pytest.raises(TrajectoryError, match="another truth"):
        cases = [replace(c, mask=~c.mask) for c in small_cases]
        export_store(store, tmp_path / "c", cases=cases)
    assert not list(tmp_path.glob("c*"))
    with pytest.raises(TrajectoryError, match="unknown format"):
        export_store(store, tmp_path / "c", "xml")
    with pytest.raises(TrajectoryError, match="cannot be written"):
        export_store(store, store.path / "format.json" / "c", cases=list(small_cases))
