"""Completions of servers in all their forms, and their way back into the conversation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.llm.openai.answers import find_defect, read_completion
from medseg_agents.llm.openai.messages import as_openai
from medseg_agents.llm.openai.policy import OpenAIPolicy

from medseg_gym.envs.views.cut_answer import CutAnswer
from medseg_gym.envs.views.messages import text_message, user_message
from medseg_gym.prompts import AddBox, Stop, encode_tool_call

BOX, STOP = encode_tool_call(AddBox(0.3, 0.2, 0.8, 0.7)), encode_tool_call(Stop())
ARGUMENTS = {"bbox_2d": [300, 200, 800, 700]}


def native(arguments, name="add_bbox", id="call_1", **fields):
    return {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
        **fields,
    }


def words(text):
    return {"type": "text", "text": text}


def message_of(content):
    return {"choices": [{"message": content, "finish_reason": "stop"}]}


def objections(messages):
    """Return the defects of a conversation that a strict server of OpenAI's API refuses."""
    problems, waiting = [], []
    for number, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                problems.append(f"{number}: answers no call")
            else:
                waiting.remove(message["tool_call_id"])
            if not isinstance(content, str) or not content:
                problems.append(f"{number}: a tool message without words")
            continue
        if waiting:
            problems.append(f"{number}: calls {waiting} have no answer")
        calls = message.get("tool_calls") or []
        waiting = [call["id"] for call in calls]
        if len(set(waiting)) < len(waiting) or not all(map(bool, waiting)):
            problems.append(f"{number}: ids {waiting}")
        for call in calls:
            try:
                if not isinstance(json.loads(call["function"]["arguments"]), dict):
                    problems.append(f"{number}: arguments are no object")
            except (TypeError, ValueError):
                problems.append(f"{number}: arguments are no JSON text")
        if role == "assistant" and not content and not calls:
            problems.append(f"{number}: an assistant message of nothing")
        if isinstance(content, list):
            kinds = {part["type"] for part in content}
            if role != "user" and kinds != {"text"}:
                problems.append(f"{number}: an image in a message of {role}")
    return [*problems, *(["the last calls have no answer"] if waiting else [])]


@pytest.fixture
def strict(serve):
    """A server that says these completions one after another, and reads like a strict one."""

    def start(*completions):
        wrong = []

        def reply(request, number):
            wrong.extend(objections(request["messages"]))
            if wrong:
                return 400, {}, {"error": {"message": "; ".join(wrong)}}
            return 200, {}, completions[number]

        return serve(reply)

    return start


def test_calls_go_back_as_they_came(strict, build, completion, small_cases):
    server = strict(
        completion(None, "tool_calls", tool_calls=[native(json.dumps(ARGUMENTS), id="a")]),
        completion(
            "both", tool_calls=[native("nonsense", id="b"), native("{}", "stop_action", id="c")]
        ),
        completion(STOP),
    )
    query = "&native_tools=1&temperature=none"
    envs, policy = build(server.url, small_cases[:1], 1, query)
    (record,) = evaluate(envs, policy)
    assert record.tools[0] == "box" and record.invalid == 0
    assert server.requests[0]["tools"] == envs.tool_schemas
    assert "temperature" not in server.requests[0]
    _, _, assistant, tool, user = server.requests[1]["messages"]
    (call,) = assistant["tool_calls"]
    assert call["id"] == tool["tool_call_id"] == "a" and call["type"] == "function"
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert tool["content"] == "This is the mask so far. 4 calls left."
    assert [part["type"] for part in user["content"]] == ["image_url"]
    if len(server.requests) == 3:  # whether two calls of one answer can be played or not
        last = server.requests[2]["messages"]
        assert [m["role"] for m in last[5:]] == ["assistant", "tool", "tool", "user"]
        assert last[5]["content"] == "both" and [m["tool_call_id"] for m in last[6:8]] == ["b", "c"]


@pytest.mark.parametrize("history", ["all", "1", "none"])
def test_every_history_is_one_that_servers_take(history, strict, build, completion, small_cases):
    calls = [native(json.dumps(ARGUMENTS), id="")]
    server = strict(*[completion(None, tool_calls=calls) for _ in range(3)], completion(STOP))
    envs, policy = build(server.url, small_cases[:1], 1, f"&history={history}")
    (record,) = evaluate(envs, policy)
    assert record.tools == ("box", "box", "box", "stop")
    last = server.requests[-1]["messages"]
    images = [m for m in last if m["role"] == "user" and isinstance(m["content"], list)]
    assert len(images) == {"all": 4, "1": 1, "none": 1}[history]
    ids = [call["id"] for m in last for call in m.get("tool_calls", [])]
    assert len(set(ids)) == len(ids) == (0 if history == "none" else 3)
    assert all(len(id) == 9 and id.isalnum() for id in ids)  # made here, as Mistral wants them


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"content": BOX}, BOX),
        ({"content": None, "tool_calls": [native(json.dumps(ARGUMENTS))]}, BOX),
        ({"content": "", "tool_calls": [native(ARGUMENTS)]}, BOX),  # an object, not a text
        ({"content": None, "tool_calls": [native(json.dumps(json.dumps(ARGUMENTS)))]}, BOX),
        ({"content": None, "tool_calls": [native("", "stop_action")]}, STOP),
        ({"content": None, "tool_calls": [native(None, "stop_action", id=None)]}, STOP),
        ({"content": [words("So: "), words(BOX)]}, f"So: {BOX}"),
        ({"content": [{"type": "thinking", "thinking": [words(STOP)]}, BOX]}, BOX),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        ({"content": None, "reasoning_content": STOP}, ""),  # a call in a thought is none
        ({"content": None, "reasoning": STOP, "tool_calls": [native(ARGUMENTS)]}, BOX),
        ({"content": None, "function_call": {"name": "add_bbox", "arguments": ARGUMENTS}}, BOX),
        ({"content": BOX, "tool_calls": None, "function_call": None}, BOX),
        ({"content": "x", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}, "?"]}, "x"),
        ({}, ""),
    ],
)  # fmt: skip
def test_forms_of_an_answer(answer, text):
    completion = read_completion(message_of(answer), 0, 512)
    assert completion.text == text and completion.cut == ""
    assert objections([{"role": "user", "content": "?"}, completion.message()]) in (
        [],
        ["the last calls have no answer"],
    )


@pytest.mark.parametrize(
    "completion",
    [None, [], "text", 3, {}, {"choices": None}, {"choices": []}, {"choices": [None]},
     {"choices": [{"message": None}]}, {"choices": {"0": 1}}, {"error": {"message": "no memory"}},
     {"choices": [{"message": {"content": ""}, "finish_reason": "error"}]},
     {"choices": [{"message": {"content": ""}, "error": {"code": 502}}]}],
)  # fmt: skip
def test_what_is_no_answer(completion):
    assert find_defect(completion) and "\n" not in find_defect(completion)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_ARGUMENTS = st.one_of(
    _JSON,
    st.sampled_from(['{"bbox_2d": [NaN]}', "[" * 99999, "null", "[1]", '"{}"']),
    st.text(max_size=40),
    st.dictionaries(st.text(max_size=8), _JSON).map(json.dumps),
)
_CALLS = st.lists(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({"name": st.text(max_size=9), "arguments": _ARGUMENTS})},
        optional={"id": st.one_of(st.none(), st.sampled_from(["", "1", "2"]))},
    ),
    max_size=3,
)
_MESSAGES = st.fixed_dictionaries(
    {"content": _JSON},
    optional={"tool_calls": st.one_of(_CALLS, _JSON), "refusal": _JSON, "function_call": _JSON},
)


@given(st.lists(_MESSAGES, min_size=1, max_size=3), st.sampled_from(["stop", "length", None]))
def test_whatever_a_server_says_makes_a_conversation_that_it_takes(messages, finish):
    """No answer makes reading raise, and no answer makes a history that strict servers refuse."""
    conversation, completions = [text_message("system", "s"), user_message("first")], []
    for turn, message in enumerate(messages):
        completion = {"choices": [{"message": message, "finish_reason": finish}]}
        completions.append(read_completion(completion, turn, 512))
        assert isinstance(completions[-1].text, str)
        conversation += [
            text_message("assistant", completions[-1].text),
            user_message(f"turn {turn}"),
        ]
    images = [f"data:{i}" for i in range(len(messages) + 1)]
    sent = as_openai(conversation, images, completions)
    assert objections(sent) == []
    urls = [
        part["image_url"]["url"]
        for m in sent
        if isinstance(m["content"], list)
        for part in m["content"]
        if part["type"] == "image_url"
    ]
    assert urls == images
    json.dumps(sent, allow_nan=False)


# cut answers ------------------------------------------------------------------------------------
CUT = [
    {"content": None},
    {"content": ""},
    {"content": '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [200, 2'},
    {"content": None, "reasoning_content": "Let me think. The liver is"},
    {"content": None, "tool_calls": [native('{"bbox_2d": [200, 200, 800, 80')]},
    {"content": None, "tool_calls": [native('{"bbox_2d": [200, 200, 80')]},
    {"content": "So:", "tool_calls": [native("")]},
]


@pytest.mark.parametrize("answer", CUT, ids=range(len(CUT)))
def test_a_cut_answer_is_a_lost_step_that_says_so(answer, strict, build, completion, small_cases):
    first = completion(None, "length")
    first["choices"][0]["message"] = {"role": "assistant", **answer}
    server = strict(first, completion(STOP))
    envs, policy = build(server.url, small_cases[:1], 1, "&max_tokens=77")
    (record,) = evaluate(envs, policy)
    assert record.tools[-1] == "stop" and len(record.tools) == 2
    assert (record.invalid, record.cut_off) == (0, 1) and policy.usage.cut_off == 1
    error = envs.episodes[0].steps[0].error
    assert "limit of 77 tokens" in error and "max_tokens" in error
    told = json.dumps(server.requests[1]["messages"][3:])
    assert "cut off at the limit of 77 tokens" in told


def test_info_says_that_an_answer_was_cut(small_cases):
    from medseg_gym.policy import make_envs

    envs = make_envs(2, "MedSegChat-v0", cases=small_cases[:2], backbone="ellipse")
    envs.reset(options={"case": [case.key for case in small_cases[:2]]})
    *_, info = envs.step([CutAnswer("well,", "it ran into the limit"), "well,"])
    assert info["error"][0] == "it ran into the limit" and "limit" not in info["error"][1]
    assert not info["valid"].any()
    *_, info = envs.step([CutAnswer(f"{BOX} and then", "it ran into the limit"), BOX])
    assert info["valid"].all() and list(info["error"]) == ["", ""]
    envs.close()


def test_a_call_before_the_cut_is_played(strict, build, completion, small_cases):
    server = strict(completion(f"{BOX} I chose this since", "length"), completion(STOP))
    envs, policy = build(server.url, small_cases[:1], 1)
    (record,) = evaluate(envs, policy)
    assert record.tools == ("box", "stop")
    assert (record.invalid, record.cut_off, policy.usage.cut_off) == (0, 0, 1)


def test_a_cut_answer_keeps_its_reason_on_the_way_to_another_process():
    import copy
    import pickle

    answer = CutAnswer("so", "because")
    for again in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert again == "so" and again.why == "because" and isinstance(again, CutAnswer)


def test_a_content_filter_is_a_cut_of_its_own():
    completion = read_completion(
        {"choices": [{"message": {}, "finish_reason": "content_filter"}]}, 0, 9
    )
    assert "content filter" in completion.cut and "tokens" not in completion.cut


def test_the_policy_can_be_imported_from_its_room():
    from medseg_agents.llm import openai

    assert openai.OpenAIPolicy is OpenAIPolicy
