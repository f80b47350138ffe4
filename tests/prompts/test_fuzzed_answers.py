"""Texts without rhyme or reason: none makes the reader raise, freeze or say nothing."""

from __future__ import annotations

import random
import time

import pytest

from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo, encode_tool_call, read_answer
from tests.prompts.renderings import BAR, DIALECTS, LOW, THOUGHTS, call_of

EXAMPLES = [
    AddBox(0.1005, 0.2005, 0.3005, 0.4005),
    AddPoint(0.5005, 0.2505),
    AddPoint(0.5005, 0.2505, False),
    *(Undo(), Clear(), Stop()),
]
JUNK = [
    "", " ", "\n", "\0", "\ud800", "\u202e", "\U0001f600", "é", "NaN", "-Infinity", "1e400",
    "9" * 400, "1" + "0" * 400, "-0", "0.5", "[" * 30, "{" * 30, "(" * 30, "]" * 5, "}" * 5,
    '"', "'", "\\", "`", "```", ",", ":", "=", "<", ">", "|", "<think>", "</think>",
    "<tool_call>", "</tool_call>", "<|im_end|>", "[TOOL_CALLS]", "null", "true", "name",
    '{"a": 1}',     "<!--",
    "stop_action()", "functions.", BAR, LOW, "\u201c", "x" * 300, " " * 300, "{'" * 20, "\\u12",
]  # fmt: skip


def fuzzed(seed):
    """A few renderings, cut, doubled, swapped and littered."""
    draw = random.Random(seed)
    text = ""
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        prompt = draw.choice(EXAMPLES)
        part = draw.choice(DIALECTS)(*call_of(prompt))
        if draw.random() < 0.2:
            part = draw.choice(THOUGHTS) % part
        text += part + draw.choice(["", "\n", " and "])
    for _ in range(draw.choice([1, 1, 2, 4, 10])):
        at, to = sorted(draw.randrange(len(text) + 1) for _ in "ab")
        kind = draw.randrange(6)
        if kind == 0:
            text = text[:at]
        elif kind == 1:
            text = text[at:]
        elif kind == 2:
            text = text[:at] + text[to:]
        elif kind == 3:
            text = text[:to] + text[at:to] * draw.choice([1, 2, 30]) + text[to:]
        elif kind == 4:
            text = text[:at] + draw.choice(JUNK) * draw.choice([1, 1, 3]) + text[at:]
        else:
            text = text[:at] + chr(draw.randrange(1, 0x3000)) + text[at + 1 :]
        text = text[:20_000]
    return text


def check_fuzzed(seed):
    text = fuzzed(seed)
    started = time.thread_time()
    answer = read_answer(text)
    assert time.thread_time() - started < 0.5, (seed, text[:200])
    assert (answer.prompt is None) == bool(answer.error) and len(answer.error) < 500, seed
    if answer.prompt is not None:
        assert read_answer(encode_tool_call(answer.prompt)).prompt == answer.prompt, seed


@pytest.mark.parametrize("block", range(4))
def test_no_text_raises_or_freezes(block):
    for seed in range(block * 1000, (block + 1) * 1000):
        check_fuzzed(seed)


@pytest.mark.parametrize(
    "piece",
    [
        "<tool_call>", '{"name": ', "<think></think>", "[", "1,", ',"a":1', " ", "stop_action()\n",
        "[stop_action()\n", "```tool_code\n", "<function=a>", "<parameter=x>", "<|", "{{", "'",
        "add_bbox((", "\\", '{"bbox_2d":[1,2,3,4]}', "stop_action() \t", "Action: a\n", "call:a{",
        "<arg_key>a<arg_value>", "to=a", ") ] `", "x=",
    ],
)  # fmt: skip
def test_long_texts_cost_time_in_proportion(piece):
    for before in ("", "<tool_call>", "```tool_code\n", "stop_action()", "<function=add_bbox>"):
        text = before + piece * (100_000 // len(piece))
        started = time.thread_time()  # not what other programs take meanwhile
        read_answer(text)
        assert time.thread_time() - started < 1


def test_a_megabyte_is_read_in_time():
    parts = [fuzzed(seed) for seed in range(500)]
    text = "".join(parts * 100)[: 1 << 20]
    for whole in (text, f"<tool_call>{text}", f"<think>{text}</think>{encode_tool_call(Stop())}"):
        started = time.thread_time()
        read_answer(whole)
        assert time.thread_time() - started < 10  # about 1; by its square it were hours
