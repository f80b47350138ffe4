"""A tiny language model that learns to look where its vision tower found a target."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest

pytest.importorskip("trl")

from medseg_agents.llm.checkpoint import load_processor
from medseg_agents.llm.first_turns import write_first_turns
from medseg_agents.llm.tiny_model import TinyConfig
from medseg_agents.sft.data import load_conversations
from medseg_agents.sft.tiny_start import build_start

from benchmarks.learning.vision.reading import Reader, train_reading
from benchmarks.learning.vision.scenes import Scenes, draw_scenes
from benchmarks.learning.vision.steps import LAST
from benchmarks.learning.vision.tower import SUBCELLS
from medseg_gym.cases import load_cases
from medseg_gym.envs.chat_options import ChatOptions

SPEC, SIDE = "phantoms:fundus?position=random", 64
GRID = SUBCELLS * SIDE // (2 * TinyConfig().patch)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Chats of the scenes' images and a model for pixels that knows nothing."""
    folder = tmp_path_factory.mktemp("reader")
    chat = ChatOptions(image_size=SIDE, texts="terse", coordinates="pixel")
    images = range(3, 19)
    write_first_turns(folder / "turns.parquet", SPEC, images, chat, questions=6)
    drawn = draw_scenes(folder / "scenes", SPEC, "train", images, chat, GRID, 4, workers=1)
    rows, shown = load_conversations((str(folder / "turns.parquet"),), folder / "cache")
    build_start(folder / "start", rows, shown)
    chats = [row["messages"] for row in pq.read_table(folder / "turns.parquet").to_pylist()]
    targets = load_cases(SPEC, "train").targets
    processor = load_processor(folder / "start")
    return folder / "start", Reader(processor, targets, chats, Scenes.read(drawn))


def test_attention_belongs_on_the_targets_own_tokens_where_numbers_are_written(reader):
    _, made = reader
    tokenizer = made.processor.tokenizer
    written = 0
    for number in range(16):
        chat, texts = made.chat(number), made.chats[number]
        ids = chat.given["input_ids"][0]
        answers = "".join(m["content"][0]["text"] for m in texts if m["role"] == "assistant")
        kept = tokenizer.decode(chat.answers[chat.answers >= 0])
        assert kept.replace("<|im_end|>", "") == answers
        boxes = re.findall(r"\[(\d+), (\d+), (\d+), (\d+)\]", answers)
        assert [tokenizer.decode(ids[look.place + 1]) for look in chat.looks] == [
            side for box in boxes for side in box
        ]
        for look, box in zip(chat.looks[::4], boxes, strict=True):
            left, top, right, bottom = (int(side) / 16 for side in box)
            assert look.shares.sum() == pytest.approx(1)
            for token in look.shares.nonzero()[:, 0].tolist():
                row, column = divmod(token, 4)
                assert left - 1 <= column <= right and top - 1 <= row <= bottom
        written += len(boxes)
    assert written > 30


def test_reading_is_learned_and_goes_on_to_the_same_weights(reader, tmp_path):
    start, made = reader
    whole = train_reading(start, tmp_path / "whole", made, 60, 0)
    lines = (tmp_path / "whole" / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    first, last = (json.loads(lines[i]) for i in (0, -1))
    assert last["loss"] < first["loss"] and last["attention"] < first["attention"]
    trained = (whole / "model.safetensors").read_bytes()
    parted = tmp_path / "parted"
    parted.mkdir()
    (parted / LAST).write_bytes((tmp_path / "whole" / LAST).read_bytes())
    again = train_reading(start, parted, made, 60, 0)
    assert (again / "model.safetensors").read_bytes() == trained
    assert train_reading(start, tmp_path / "whole", made, 60, 0) == whole
