"""`verifiers`' own evaluation plays the environment against a server that says a script."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip(
    "verifiers.v1",
    reason="verifiers is not installed: its pins conflict with the extra openenv, so .ci/run runs "
    "these tests in an environment of their own (docs/how-to/hubs.md)",
)

from medseg_agents.verifiers import load_environment

from medseg_gym.errors import BackboneError, MedSegError, PolicyError

from ..chat_scripts import BOX, OPTIONS, SCRIPTS, STOP, VOLUMES, call


def environment(**options):
    return load_environment(**{**OPTIONS, **options})


def turns_before(request):
    return sum(message["role"] == "assistant" for message in request["messages"])


def only(episodes):
    (episode,) = episodes
    (trace,) = episode.traces
    assert episode.ok and trace.ok, (episode.errors, trace.errors)
    return trace


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_rewards_are_those_of_the_environment_itself(script, serve, evaluate, direct):
    server = serve(lambda request, number: script[turns_before(request)])
    trace = only(evaluate(environment(), server.url))
    rewards, info, terminated = direct(trace.task.data.case, script)
    assert terminated and len(server.requests) == len(script)
    assert trace.reward == trace.metrics["episode_return"] == sum(rewards)
    assert trace.metrics["dice"] == info["dice"]
    assert trace.metrics["turns"] == len(script)


# concurrent rollouts, and what the model is shown ------------------------------------------------
def images_of(messages):
    return [
        part
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def test_concurrent_rollouts_are_played_together_and_rewarded_as_alone(serve, evaluate, direct):
    chosen = {}  # script by the first turn, that is by case

    def reply(request, number):
        opening = json.dumps(request["messages"][0]["content"])
        script = chosen.setdefault(opening, list(SCRIPTS.values())[len(chosen)])
        return script[turns_before(request)]

    server, env = serve(reply), environment(options={"max_delay_ms": 30.0})
    batches = env.taskset.worker.batches
    episodes = evaluate(env, server.url, tasks=6, num_rollouts=2)
    assert len(episodes) == 12 and len(chosen) == 6
    calls = len(server.requests) + len(episodes)  # every episode is begun, too
    assert env.taskset.worker.batches - batches < calls / 2
    for episode in episodes:
        (trace,) = episode.traces
        content = trace.nodes[0].message.model_dump()["content"]
        rewards, info, _ = direct(trace.task.data.case, chosen[json.dumps(content)])
        assert trace.reward == sum(rewards) and trace.metrics["dice"] == info["dice"]


def test_the_model_is_shown_the_conversation_of_the_environment(serve, evaluate):
    import gymnasium as gym
    import numpy as np
    from medseg_agents.llm.openai.answers import AssistantTurn
    from medseg_agents.llm.openai.messages import as_openai, data_url

    script = [BOX, "Let me see.", STOP]
    server = serve(lambda request, number: script[turns_before(request)])
    case = only(evaluate(environment(texts="full"), server.url)).task.data.case
    env = gym.make("MedSegChat-v0", **{**OPTIONS, "texts": "full"}).unwrapped
    env.reset(options={"case": case})
    for number, request in enumerate(server.requests):
        urls = [data_url(np.asarray(image)) for image in env.images()]
        turns = [AssistantTurn(answer) for answer in script[:number]]
        assert request["messages"] == as_openai(env.messages(), urls, turns)
        env.step(script[number])
    env.close()


CALLS = {
    "one": [("add_bbox", '{"bbox_2d": [250, 250, 750, 750]}')],
    "two": [("add_bbox", '{"bbox_2d": [250, 250, 750, 750]}'), ("stop_action", "{}")],
    "not an object": [("add_bbox", "[1, 2, 3, 4]")],
    "not json": [("add_bbox", "{bbox_2d: 250,,")],
    "no arguments": [("add_bbox", "")],
    "no such tool": [("segment_all", "{}")],
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_tool_calls_are_answered_by_tool_messages_and_rewarded_as_text(
    calls, serve, evaluate, completion, direct
):
    listed = [
        {"id": f"id{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]

    def reply(request, number):
        if turns_before(request):
            return STOP
        return 200, {}, completion(None, "tool_calls", tool_calls=listed)

    server = serve(reply)
    trace = only(evaluate(environment(native_tools=True), server.url))
    first, second = server.requests
    names = [tool["function"]["name"] for tool in first["tools"]]
    assert names[0] == "add_bbox" and names[-1] == "stop_action"
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["user", "assistant", *["tool"] * len(calls), "user"]
    answered = [m["tool_call_id"] for m in second["messages"] if m["role"] == "tool"]
    assert answered == [call["id"] for call in listed]
    assert len(images_of(second["messages"])) == 2
    name, arguments = calls[0]
    text = f'<tool_call>{{"name": "{name}", "arguments": {arguments or "{}"}}}</tool_call>'
    rewards, _, _ = direct(trace.task.data.case, [text, STOP])
    assert trace.reward == sum(rewards)


def test_volumes_are_played_with_both_images(serve, evaluate, direct):
    box = call("add_bbox", slice=2, bbox_2d=[200, 200, 800, 800])
    server = serve(lambda request, number: [box, STOP][turns_before(request)])
    trace = only(evaluate(environment(**VOLUMES), server.url))
    rewards, info, _ = direct(trace.task.data.case, [box, STOP], **VOLUMES)
    assert (trace.reward, trace.metrics["dice"]) == (sum(rewards), info["dice"])
    assert trace.metrics["valid_rate"] == 1
    assert [len(images_of(request["messages"])) for request in server.requests] == [2, 4]


def test_an_answer_at_its_limit_is_explained_to_the_model(serve, evaluate, completion):
    def reply(request, number):
        return STOP if turns_before(request) else (200, {}, completion(BOX[:-40], "length"))

    server = serve(reply)
    only(evaluate(environment(texts="full"), server.url))
    assert "cut off at a limit of tokens" in json.dumps(server.requests[1]["messages"][-1])


# rewards ------------------------------------------------------------------------------------------
def test_a_limit_of_turns_leaves_the_return_so_far(serve, evaluate, direct):
    server = serve(lambda request, number: BOX)
    env = environment(agent={"max_turns": 1})
    trace = only(evaluate(env, server.url))
    rewards, _, _ = direct(trace.task.data.case, [BOX])
    assert (trace.reward, trace.metrics["done"], len(server.requests)) == (rewards[0], 0.0, 1)


def test_rewards_by_weight(serve, evaluate):
    server = serve(lambda request, number: [BOX, "no", STOP][turns_before(request)])
    weights = {"return_weight": 0.0, "dice_gain_weight": 2.0, "format_weight": 0.5}
    trace = only(evaluate(environment(**weights), server.url))
    assert set(trace.rewards) == {"dice_gain", "valid_rate"}
    assert trace.metrics["valid_rate"] == 2 / 3 and trace.metrics["dice"] > 0
    assert trace.reward == pytest.approx(2 * trace.metrics["dice_gain"] + 1 / 3)


def test_attempts_of_a_group_are_compared(serve, evaluate):
    server = serve(lambda request, number: [BOX, STOP][turns_before(request)] if number else STOP)
    env = environment(attempts=3, group_weight=1.0, max_concurrent_agents=None)
    (episode,) = evaluate(env, server.url)
    assert episode.ok
    returns = [trace.metrics["episode_return"] for trace in episode.traces]
    mean = sum(returns) / 3
    assert sorted(returns)[0] == 0.0 and sorted(returns)[1] == sorted(returns)[2] > 0
    for trace, value in zip(episode.traces, returns, strict=True):
        assert trace.metrics["return_over_mean"] == pytest.approx(value - mean)
        assert trace.reward == pytest.approx(2 * value - mean)
        assert trace.metrics["best_of_group"] == float(value == max(returns))


# failures never become rewards --------------------------------------------------------------------
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(
    "failure", [(500, {}, {"error": {"message": "down"}}), None, (200, {}, {})]
)
def test_a_server_that_fails_gives_no_reward(failure, turn, serve, evaluate):
    server = serve(lambda request, number: failure if turns_before(request) == turn else BOX)
    (episode,) = evaluate(environment(retries=0), server.url)
    (trace,) = episode.traces
    assert not episode.ok and not trace.ok and trace.errors
    assert not trace.rewards and "dice" not in trace.metrics


def test_a_server_that_fails_once_is_asked_again(serve, evaluate):
    answers = iter([(500, {}, {"error": {"message": "down"}}), STOP])
    server = serve(lambda request, number: next(answers))
    assert only(evaluate(environment(), server.url)).reward == 0.0
    assert len(server.requests) == 2


@pytest.mark.parametrize("at", [0, 1])
def test_a_segmenter_that_fails_gives_no_reward(at, serve, evaluate, monkeypatch):
    server = serve(lambda request, number: BOX)
    env = environment()
    core = env.taskset.worker.core
    step, steps = core.step, []

    def failing(*arguments):
        steps.append(arguments)
        if len(steps) > at:
            raise BackboneError("the segmenter is gone; start it again")
        return step(*arguments)

    monkeypatch.setattr(core, "step", failing)
    (episode,) = evaluate(env, server.url)
    assert not episode.ok and not any(trace.rewards for trace in episode.traces)
    assert "the segmenter is gone" in episode.errors[0].message
    monkeypatch.undo()
    assert sum(taken is not None for taken in core.engine.episodes) <= 1  # let go by the next batch


def test_an_unknown_case_is_an_error_of_its_episode(serve, evaluate, monkeypatch):
    server, env = serve(lambda request, number: STOP), environment()
    load = type(env.taskset).load
    monkeypatch.setattr(
        type(env.taskset), "load", lambda self: [next(load(self)).with_data(case="nobody")]
    )
    (episode,) = evaluate(env, server.url)
    assert not episode.ok and "nobody" in episode.errors[0].message and not server.requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": "nowhere:at/all"}, "nowhere"),
        ({"backbone": "nobody"}, "nobody"),
        ({"image_size": 0}, "image_size"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"bins": 10}, "bins"),
        ({"env_id": "CartPole-v1"}, "CartPole-v1"),
        ({"attempts": 0}, "attempts"),
        ({"max_steps": 0}, "max_steps"),
        ({"native_tools": True, "agent": {}}, "native_tools"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises((MedSegError, PolicyError, ValueError), match=message):
        environment(**options).taskset.worker  # noqa: B018  (made by looking)


def test_splits_hold_different_cases():
    keys = {
        split: {task.key for task in environment(split=split).taskset.take(5)}
        for split in ("train", "test")
    }
    assert len(keys["train"]) == len(keys["test"]) == 5 and not keys["train"] & keys["test"]


def test_the_example_of_the_page_runs(serve, evaluate, monkeypatch, capsys):
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "hubs.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    server = serve(lambda request, number: [BOX, STOP][turns_before(request)])
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("True phantoms/test") for line in lines)
