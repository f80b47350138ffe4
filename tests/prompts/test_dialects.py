"""Dialects of tool calls: whatever a model writes a call in is read back, and nothing cut is."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.prompts import (
    AddBox,
    AddPoint,
    Clear,
    Coordinates,
    Stop,
    Undo,
    encode_tool_call,
    read_answer,
)

CELLS = st.integers(0, 999)
ON_GRID = CELLS.map(lambda v: (v + 0.5) / 1000)
PROMPTS = st.one_of(
    st.builds(AddBox, ON_GRID, ON_GRID, ON_GRID, ON_GRID),
    st.builds(AddPoint, ON_GRID, ON_GRID, st.booleans()),
    st.sampled_from([Undo(), Clear(), Stop()]),
)
BOX = AddBox(0.1005, 0.2005, 0.3005, 0.4005)
CLICK = AddPoint(0.5005, 0.2505, False)
EXAMPLES = [BOX, CLICK, AddPoint(0.5005, 0.2505), Undo(), Clear(), Stop()]

BAR, LOW = "\uff5c", "\u2581"  # of DeepSeek's marks


def call_of(prompt):
    call = json.loads(encode_tool_call(prompt)[11:-12])
    return call["name"], call["arguments"]


def hermes(name, arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def hermes_commas(name, arguments):
    inner = ", ".join(f'"{k}": {json.dumps(v)[:-1]},]' for k, v in arguments.items())
    if name == "add_point":
        inner = f'"point_2d": [{arguments["point_2d"][0]}, {arguments["point_2d"][1]},], '
        inner += f'"point_type": "{arguments["point_type"]}",'
    return f'<tool_call>{{"name": "{name}", "arguments": {{{inner}}},}}</tool_call>'


def hermes_python(name, arguments):
    return f"<tool_call>{ {'name': name, 'arguments': arguments} }</tool_call>"


def hermes_text(name, arguments):
    call = {"name": name, "arguments": json.dumps(arguments)}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def hermes_text_twice(name, arguments):
    call = {"name": name, "arguments": json.dumps(json.dumps(arguments))}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def hermes_parameters(name, arguments):
    return f"<tool_call>{json.dumps({'name': name, 'parameters': arguments})}</tool_call>"


def hermes_fenced(name, arguments):
    return f"<tool_call>\n```json\n{json_alone(name, arguments)}\n```\n</tool_call>"


def openai_object(name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return json.dumps({"id": "call_1", "type": "function", "function": function})


def openai_message(name, arguments):
    return f'{{"role": "assistant", "tool_calls": [{openai_object(name, arguments)}]}}'


def json_alone(name, arguments):
    return json.dumps({"name": name, "arguments": arguments})


def json_fenced(name, arguments):
    return f"```json\n{json.dumps({'name': name, 'arguments': arguments}, indent=2)}\n```"


def json_list(name, arguments):
    return f"[{json_alone(name, arguments)}]"


def langchain(name, arguments):
    return f"```\n{json.dumps({'action': name, 'action_input': arguments})}\n```"


def qwen3_coder(name, arguments):
    inner = "".join(
        f"<parameter={k}>\n{v if isinstance(v, str) else json.dumps(v)}\n</parameter>\n"
        for k, v in arguments.items()
    )
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def qwen3_coder_bare(name, arguments):
    return qwen3_coder(name, arguments).replace("<tool_call>\n", "").replace("\n</tool_call>", "")


def qwen3_coder_loose(name, arguments):
    return qwen3_coder(name, arguments).replace("\n</parameter>", "").replace("\n", "")


def seed(name, arguments):
    return qwen3_coder(name, arguments).replace("tool_call>", "seed:tool_call>")


def glm(name, arguments):
    inner = "".join(
        f"<arg_key>{k}</arg_key>\n<arg_value>{v if isinstance(v, str) else json.dumps(v)}"
        "</arg_value>\n"
        for k, v in arguments.items()
    )
    return f"<tool_call>{name}\n{inner}</tool_call>"


def glm_tight(name, arguments):
    return glm(name, arguments).replace("\n", "")


def python_arguments(arguments):
    return ", ".join(f"{k}={v!r}" for k, v in arguments.items())


def pythonic(name, arguments):
    return f"[{name}({python_arguments(arguments)})]"


def python_alone(name, arguments):
    return f"{name}({python_arguments(arguments)})"


def python_positions(name, arguments):
    return f"{name}({', '.join(map(repr, arguments.values()))})"


def python_numbers(name, arguments):
    flat = [x for v in arguments.values() for x in (v if isinstance(v, list) else [v])]
    return f"{name}({', '.join(map(repr, flat))})"


def python_tuples(name, arguments):
    return python_alone(name, arguments).replace("[", "(").replace("]", ")")


def llama4(name, arguments):
    return f"<|python_start|>{pythonic(name, arguments)}<|python_end|>"


def lfm2(name, arguments):
    return f"<|tool_call_start|>{pythonic(name, arguments)}<|tool_call_end|><|im_end|>"


def olmo(name, arguments):
    return f"<function_calls>\n{python_alone(name, arguments)}\n</function_calls>"


def tool_code(name, arguments):
    return f"```tool_code\n{python_alone(name, arguments)}\n```"


def tool_code_print(name, arguments):
    return f"```tool_code\nprint(default_api.{python_alone(name, arguments)})\n```"


def python_fenced(name, arguments):
    return f"```python\nresult = {python_alone(name, arguments)}\n```"


def llama3(name, arguments):
    return f"<|python_tag|>{json.dumps({'name': name, 'parameters': arguments})}<|eom_id|>"


def llama3_plain(name, arguments):
    return json.dumps({"type": "function", "name": name, "parameters": arguments}) + "<|eot_id|>"


def llama_function(name, arguments):
    return f"<function={name}>{json.dumps(arguments)}</function>"


def mistral(name, arguments):
    return f"[TOOL_CALLS] [{json.dumps({'name': name, 'arguments': arguments, 'id': 'a1'})}]</s>"


def mistral_args(name, arguments):
    return f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments)}"


def mistral_id(name, arguments):
    return f"[TOOL_CALLS]{name}[CALL_ID]a1b2c3d4e[ARGS]{json.dumps(arguments)}"


def deepseek(name, arguments):
    return (
        "<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>"
        f"{name}\n```json\n{json.dumps(arguments)}\n```<|tool_call_end|><|tool_calls_end|>"
    ).replace("|", BAR).replace("_begin", f"{LOW}begin").replace("_end", f"{LOW}end").replace(
        "tool_", f"tool{LOW}"
    )


def deepseek_plain(name, arguments):
    return deepseek(name, arguments).replace(BAR, "|")


def deepseek_31(name, arguments):
    mark = f"<{BAR}tool{LOW}%s{BAR}>"
    begins = mark % f"calls{LOW}begin" + mark % f"call{LOW}begin"
    ends = mark % f"call{LOW}end" + mark % f"calls{LOW}end"
    return f"{begins}{name}{mark % 'sep'}{json.dumps(arguments)}{ends}<{BAR}end{LOW}of{LOW}sentence{BAR}>"


def deepseek_32(name, arguments):
    ds = f"{BAR}DSML{BAR}"
    inner = "".join(
        f'<{ds}parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">'
        f"{v if isinstance(v, str) else json.dumps(v)}</{ds}parameter>\n"
        for k, v in arguments.items()
    )
    return (
        f'<{ds}function_calls>\n<{ds}invoke name="{name}">\n{inner}</{ds}invoke>\n'
        f"</{ds}function_calls>"
    )


def kimi(name, arguments):
    return (
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0"
        f"<|tool_call_argument_begin|>{json.dumps(arguments)}<|tool_call_end|>"
        "<|tool_calls_section_end|>"
    )


def kimi_without_marks(name, arguments):
    return f"functions.{name}:0{json.dumps(arguments)}"


def minimax(name, arguments):
    inner = "".join(
        f'<parameter name="{k}">{v if isinstance(v, str) else json.dumps(v)}</parameter>\n'
        for k, v in arguments.items()
    )
    return f'<minimax:tool_call>\n<invoke name="{name}">\n{inner}</invoke>\n</minimax:tool_call>'


def minimax_1(name, arguments):
    return f"<tool_calls>\n{json_alone(name, arguments)}\n</tool_calls>"


def invoke(name, arguments):
    return minimax(name, arguments).replace("minimax:tool_call", "function_calls")


def harmony(name, arguments):
    return (
        "<|channel|>analysis<|message|>A box will do.<|end|><|start|>assistant<|channel|>commentary "
        f"to=functions.{name} <|constrain|>json<|message|>{json.dumps(arguments)}<|call|>"
    )


def harmony_header(name, arguments):
    return (
        f"<|start|>assistant to=functions.{name}<|channel|>commentary json<|message|>"
        f"{json.dumps(arguments)}<|call|>"
    )


def granite(name, arguments):
    return f"<|tool_call|>[{json_alone(name, arguments)}]"


def phi(name, arguments):
    return f"<|tool_call|>[{json_alone(name, arguments)}]<|/tool_call|>"


def internlm(name, arguments):
    call = json.dumps({"name": name, "parameters": arguments})
    return f"<|action_start|><|plugin|>\n{call}<|action_end|>"


def cohere(name, arguments):
    call = {"tool_call_id": "0", "tool_name": name, "parameters": arguments}
    return (
        "<|START_THINKING|>A box.<|END_THINKING|><|START_ACTION|>[\n"
        f"    {json.dumps(call)}\n]<|END_ACTION|>"
    )


def nemotron(name, arguments):
    return f"<TOOLCALL>[{json_alone(name, arguments)}]</TOOLCALL>"


def apertus(name, arguments):
    return f"<|tools_prefix|>[{json.dumps({name: arguments})}]<|tools_suffix|>"


def gemma_function(name, arguments):
    inner = ",".join(
        f"{k}:<escape>{v}<escape>" if isinstance(v, str) else f"{k}:{json.dumps(v)}"
        for k, v in arguments.items()
    )
    return f"<start_function_call>call:{name}{{{inner}}}<end_function_call>"


def gemma_4(name, arguments):
    inner = ",".join(
        f'{k}:<|"|>{v}<|"|>' if isinstance(v, str) else f"{k}:{json.dumps(v)}"
        for k, v in arguments.items()
    )
    return f"<|tool_call>call:{name}{{{inner}}}<tool_call|>"


def hunyuan(name, arguments):
    return f"<tool_call>{name}\n```json\n{json.dumps(arguments)}\n```\n</tool_call>"


def react(name, arguments):
    return f"Action: {name}\nAction Input: {json.dumps(arguments)}"


def older(name, arguments):
    if name != "add_point":
        return hermes(name, arguments)
    x, y = arguments["point_2d"]
    return hermes(f"add_{arguments['point_type']}_point", {"x": x, "y": y})


DIALECTS = [
    hermes, hermes_commas, hermes_python, hermes_text, hermes_text_twice, hermes_parameters,
    hermes_fenced, openai_object, openai_message, json_alone, json_fenced, json_list, langchain,
    qwen3_coder, qwen3_coder_bare, qwen3_coder_loose, seed, glm, glm_tight, pythonic, python_alone,
    python_positions, python_numbers, python_tuples, llama4, lfm2, olmo, tool_code,
    tool_code_print, python_fenced, llama3, llama3_plain, llama_function, mistral, mistral_args,
    mistral_id, deepseek, deepseek_plain, deepseek_31, deepseek_32, kimi, kimi_without_marks,
    minimax, minimax_1, invoke, harmony, harmony_header, granite, phi, internlm, cohere, nemotron,
    apertus, gemma_function, gemma_4, hunyuan, react, older,
]  # fmt: skip
THOUGHTS = [
    "<think>%s</think>", "<thinking>\n%s\n</thinking>\n\n", "<reasoning>%s</reasoning>",
    "<thought>%s</thought>", "%s</think>", "[THINK]%s[/THINK]", "\u25c1think\u25b7%s\u25c1/think\u25b7",
    "<|START_THINKING|>%s<|END_THINKING|>", "<unused94>thought\n%s<unused95>", "<Think>%s</think>",
    "<|channel|>analysis<|message|>%s<|end|><|start|>assistant", "<|channel>thought\n%s<channel|>",
    "<seed:think>%s</seed:think>", "<|begin_of_thought|>%s<|end_of_thought|>",
]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_every_dialect_is_read(dialect):
    for prompt in EXAMPLES:
        text = dialect(*call_of(prompt))
        answer = read_answer(text)
        assert answer.prompt == prompt, (text, answer.error)
        assert not any("ignored" in repair or "unreadable" in repair for repair in answer.repairs)


@given(PROMPTS, st.sampled_from(DIALECTS), st.sampled_from(["", "The box.\n", "\n\n", "1. Draw:\n"]))
def test_any_call_in_any_dialect_is_read_back(prompt, dialect, before):
    text = dialect(*call_of(prompt))
    for whole in (text, text + "\n", f"{before}{text}"):
        answer = read_answer(whole)
        assert answer.prompt == prompt, (whole, answer.error)


@given(PROMPTS, st.sampled_from(DIALECTS), st.sampled_from(["fraction", "pixel"]), st.data())
def test_other_coordinates_are_read_back_in_any_dialect(prompt, dialect, kind, data):
    coordinates = Coordinates(kind, data.draw(st.integers(8, 2000)) if kind == "pixel" else 0)
    written = encode_tool_call(prompt, coordinates)
    expected = read_answer(written, coordinates=coordinates).prompt
    call = json.loads(written[11:-12])
    answer = read_answer(dialect(call["name"], call["arguments"]), coordinates=coordinates)
    assert expected is not None and answer.prompt == expected, (written, answer.error)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_a_call_cut_anywhere_means_the_same_or_nothing(dialect):
    for prompt in (BOX, CLICK, Stop()):
        text = dialect(*call_of(prompt))
        needed = text.rfind(json.dumps(list(call_of(prompt)[1].values())[0])[-4:]) if prompt != Stop() else 1
        for length in range(len(text)):
            answer = read_answer(text[:length])
            assert answer.prompt in (None, prompt), text[:length]
            if length <= needed:
                assert answer.prompt is None, text[:length]


@pytest.mark.parametrize("thought", THOUGHTS)
def test_what_is_thought_is_never_done(thought):
    for dialect in DIALECTS:
        considered, meant = dialect(*call_of(Stop())), dialect(*call_of(BOX))
        if "THINKING" in considered or "<|end|>" in considered:  # has a thought of its own
            continue
        whole = thought % f"Perhaps {considered}\n? No." + meant
        assert read_answer(whole).prompt == BOX, whole
        assert read_answer(thought % considered).prompt is None
        assert "thinking is not allowed" in read_answer(whole, thinking="refuse").error
        opened = (thought % "\0").partition("\0")[0]
        if opened:
            answer = read_answer(f"{opened}Perhaps {considered}")
            assert answer.prompt is None and "the thought was not closed" in answer.error


def test_thoughts_within_thoughts_and_behind_the_call():
    stop, box = hermes(*call_of(Stop())), hermes(*call_of(BOX))
    for text in (
        f"{box}<think>{stop}</think>",
        f"{box}<think>{stop}",
        f"<think>a</think><reasoning>{stop}</reasoning>{box}",
        f"<think>a <think>b</think> {stop} </think>{box}",
        f"<think>a <reasoning>{stop}</think>{box}",
        f"<think>a</think>{box}<|end|>",
    ):
        assert read_answer(text).prompt == BOX, text
    assert read_answer(f"<reasoning>a</think>{box}").prompt is None  # not closed by another's mark


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_of_two_calls_the_first_counts_and_the_other_is_told(dialect):
    first, second = dialect(*call_of(BOX)), dialect(*call_of(Stop()))
    answer = read_answer(f"{first}\n{second}")
    assert answer.prompt == BOX and "1 other call ignored" in answer.repairs
    again = read_answer(f"{first}\n{first}")
    assert again.prompt == BOX and not any("ignored" in repair for repair in again.repairs)


@pytest.mark.parametrize(
    "text",
    [
        "I could call stop_action() here, but the mask leaks.",
        "stop_action() would be too early.",
        "You would write:\nstop_action()\nbut the mask leaks.",
        "```python\nstop_action()\n```\nis what I would say if the mask were good.",
        "The tools are add_bbox, add_point and stop_action.",
        "stop_action",
        "[stop_action()",
        "stop_action(",
        "<function=stop_action>",
        "<tool_call>stop_action",
        "<tool_call><function=stop_action>",
        '{"name": "stop_action"',
        "Action: stop_action",
        "[TOOL_CALLS]stop_action",
        '{"point_2d": [500, 250]',
        '[{"point_2d": [500, 250], "label": "squ',
        # two things at once, or one that is no call
        '{"bbox_2d": [1, 2, 3, 4], "point_2d": [500, 250]}',
        '{"box_2d": [1, 2, 3, 4], "label": "square"}',
        '{"name": "add_bbox", "arguments": {"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}}',
        '{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}}',
        '{"name": "stop_action", "name": "undo_action"}',
        '{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, 4]}, "parameters": {"x": 1}}',
        '{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
        '{"name": "add_point", "arguments" {"point_2d": [1, 2]}}',
        '{"name": "add_point", "arguments": {"point_2d": [1, 2]}}',
        "add_point{\"point_2d\": [1, 2]}",
        "[zoom(bbox_2d=[1, 2, 3, 4])]",
        "add_bbox(1, 2, 3, 4, 5)",
        "stop_action(1)",
        "First:\nadd_bbox(bbox_2d=[1, 2, 3, 4])\nThen, if it fits:\nstop_action()",
    ],
)
def test_what_is_no_whole_call_or_two_is_not_done(text):
    answer = read_answer(text)
    assert answer.prompt is None and answer.error


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ('{"bbox_2d": [100, 200, 300, 400]}', BOX),
        ('[{"bbox_2d": [100, 200, 300, 400], "label": "square"}]', BOX),
        ('```json\n{"bbox_2d": [[100, 200, 300, 400]], "label": "a"}\n```', BOX),
        ('<answer>{"bbox_2d": [100, 200, 300, 400]}</answer>', BOX),
        ('<tool_call>{"bbox_2d": [100, 200, 300, 400]}</tool_call>', BOX),
        ("<answer>\nadd_bbox(bbox_2d=[100, 200, 300, 400])\n</answer>", BOX),
        ('{"point_2d": [500, 250], "label": "square"}', EXAMPLES[2]),
        ('{"point_2d": [500, 250], "label": 0}', CLICK),
        ('{"point_2d": [500, 250], "label": "background"}', CLICK),
        ('{"point_2d": [500, 250], "point_type": "negative"}', CLICK),
        ('{"name": "add_bbox", "arguments": {"x1": 100, "y1": 200, "x2": 300, "y2": 400}}', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": "[100, 200, 300, 400]"}}', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": "100, 200, 300, 400"}}', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": [[100, 200, 300, 400]] }}</tool_call>', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": [[[100, 200], [300, 400]]]}}', BOX),
        ('{"name": "functions.add_bbox", "arguments": {"bbox_2d": [100, 200, 300, 400]}}', BOX),
        ("<tool_call>add_bbox(bbox_2d=[100, 200, 300, 400])</tool_call>", BOX),
        ("The square is here.\n\n[add_bbox(bbox_2d=[100, 200, 300, 400])]", BOX),
        ("stop_action()", Stop()),
        ("  stop_action()  \n", Stop()),
        ("```\nstop_action()\n```", Stop()),
        ("[stop_action()]<|eot_id|>", Stop()),
        ("{\"function\": {\"name\": \"stop_action\", \"arguments\": \"{}\"}}", Stop()),
        ("{\"function\": \"stop_action\", \"arguments\": {}}", Stop()),
        ('{"tool": "stop_action"}', Stop()),
    ],
)  # fmt: skip
def test_siblings_of_the_dialects(text, prompt):
    answer = read_answer(text)
    assert answer.prompt == prompt, answer.error


@pytest.mark.parametrize(
    ("word", "positive"),
    [
        *[(word, True) for word in ("positive", "Foreground", "fg", "pos", 1, 1.0, "1", " 1 ")],
        *[(word, False) for word in ("negative", "BACKGROUND", "bg", "neg", 0, "0")],
        *[(word, None) for word in (2, -1, "2", "", "square", None, True, False, [1], {}, 0.5)],
    ],
)
def test_types_of_points_by_their_other_names(word, positive):
    for dialect in (hermes, hermes_python, pythonic):
        answer = read_answer(dialect("add_point", {"point_2d": [500, 250], "point_type": word}))
        expected = None if positive is None else AddPoint(0.5005, 0.2505, positive)
        assert answer.prompt == expected and bool(answer.error) == (positive is None)


# texts without rhyme or reason ------------------------------------------------------------------
JUNK = [
    "", " ", "\n", "\0", "\ud800", "\u202e", "\U0001f600", "é", "NaN", "-Infinity", "1e400",
    "9" * 400, "1" + "0" * 400, "-0", "0.5", "[" * 30, "{" * 30, "(" * 30, "]" * 5, "}" * 5,
    '"', "'", "\\", "`", "```", ",", ":", "=", "<", ">", "|", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "<|im_end|>", "[TOOL_CALLS]", "null", "true", "name", '{"a": 1}', "<!--", "&lt;",
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


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "piece",
    [
        "<tool_call>", '{"name": ', "<think></think>", "[", "1,", ',"a":1', " ", "stop_action()\n",
        "[stop_action()\n", "```tool_code\n", "<function=a>", "<parameter=x>", "<|", "{{", "'",
        "add_bbox((", "\\", '{"bbox_2d":[1,2,3,4]}', "stop_action() \t", "Action: a\n", "call:a{",
        "<arg_key>a<arg_value>", "to=a",
    ],
)  # fmt: skip
def test_a_megabyte_is_read_in_time(piece):
    for text in (piece * (MEGABYTE // len(piece)), "<tool_call>" + piece * (MEGABYTE // len(piece))):
        started = time.thread_time()
        read_answer(text)
        assert time.thread_time() - started < 8  # about 1 here; a square would take hours
