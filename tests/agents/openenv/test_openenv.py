"""OpenEnv's own client and validator against the server, on loopback."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install 'medseg-gym[openenv]'")

from medseg_agents.openenv import MedSegAction, MedSegClient, as_messages

from medseg_gym.prompts import AddBox, AddPoint, Clear, Undo, encode_tool_call

from ..chat_scripts import BOX, OPTIONS, SCRIPTS, STOP, VOLUMES, call
from .conftest import play


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_rewards_are_those_of_the_environment_itself(script, start, direct):
    address, worker = start()
    case = worker.core.source.keys[3]
    with MedSegClient(address).sync() as client:
        rewards, result = play(client, script, case=case)
        state = client.state()
    expected, info, _ = direct(case, script)
    assert rewards == expected and result.done and state.done
    assert state.dice == info["dice"] and state.episode_return == sum(expected)
    assert result.metadata["error"] == info["error"]
    assert (state.case, state.step_count) == (case, len(script))


def test_any_answers_are_rewarded_as_by_the_environment_itself(start, direct):
    address, worker = start()
    calls = st.from_type(AddBox) | st.from_type(AddPoint) | st.sampled_from([Undo(), Clear()])
    answer = calls.map(encode_tool_call) | st.text(max_size=30)
    cases = st.sampled_from(worker.core.source.keys[:4])
    with MedSegClient(address).sync() as client:

        @settings(max_examples=15)
        @given(cases, st.lists(answer, min_size=3, max_size=3))
        def law(case, answers):
            rewards, _ = play(client, answers, case=case)
            expected, info, _ = direct(case, answers)
            assert rewards == expected and client.state().dice == info["dice"]

        law()


# sessions ---------------------------------------------------------------------------------------
def test_sessions_are_played_together_and_rewarded_as_alone(start, direct):
    address, worker = start(max_delay_ms=30.0)
    scripts = list(SCRIPTS.values())[:8]
    keys = worker.core.source.keys[: len(scripts)]

    async def session(case, script):
        async with MedSegClient(address) as client:
            result, rewards = await client.reset(case=case), []
            for answer in script:
                result = await client.step(MedSegAction(answer=answer))
                rewards.append(result.reward)
            return rewards, (await client.state()).dice

    async def all_sessions():
        return await asyncio.gather(*map(session, keys, scripts))

    batches = worker.batches
    results = asyncio.run(all_sessions())
    for case, script, (rewards, dice) in zip(keys, scripts, results, strict=True):
        expected, info, _ = direct(case, script)
        assert rewards == expected and dice == info["dice"]
    calls = len(scripts) + sum(map(len, scripts))
    assert worker.batches - batches < calls / 2


def test_seeds_draw_the_cases_that_the_environment_draws(start):
    import gymnasium as gym

    env = gym.make("MedSegChat-v0", **OPTIONS).unwrapped
    drawn = []
    for seed in (5, None, None, 11):
        env.reset(seed=seed)
        drawn.append(env.episode.case.key)
    env.close()
    address, _ = start()
    with MedSegClient(address).sync() as client:
        for seed, case in zip((5, None, None, 11), drawn, strict=True):
            client.reset() if seed is None else client.reset(seed=seed)
            assert client.state().case == case


def test_what_a_client_gets_is_the_conversation_and_nothing_of_the_truth(start):
    import gymnasium as gym
    from medseg_agents.llm.openai.messages import as_openai, data_url

    script = [BOX, "Let me see.", STOP]
    address, worker = start(texts="full")
    case = worker.core.source.keys[0]
    env = gym.make("MedSegChat-v0", **{**OPTIONS, "texts": "full"}).unwrapped
    env.reset(options={"case": case})
    with MedSegClient(address).sync() as client:
        result = client.reset(case=case)
        assert result.observation.tools == env.tool_schemas
        messages, turns = as_messages(result.observation), []
        for number, answer in enumerate(script):
            urls = [data_url(np.asarray(image)) for image in env.images()]
            assert messages == as_openai(env.messages(), urls, turns)
            action = MedSegAction(answer=answer)
            result = client.step(action)
            *_, info = env.step(answer)
            shown = result.observation.model_dump(exclude={"reward", "done", "system", "tools"})
            assert set(shown) == {"text", "images", "metadata"}
            assert shown["metadata"] == {
                name: info[name] for name in ("tool", "valid", "error", "repairs")
            }
            turns.append(action.turn(number))
            messages += [turns[-1].message(), *as_messages(result.observation, turns[-1])]
    assert result.observation.images == [] and result.observation.text == env.view.texts.over
    env.close()


@pytest.mark.parametrize(
    "arguments", ['{"bbox_2d": [250, 250, 750, 750]}', "{bbox_2d: 1,,", "[1]", "", None, {"a": 1}]
)
def test_tool_calls_are_taken_as_a_server_gave_them(arguments, start, direct):
    call = {"id": "a", "type": "function", "function": {"name": "add_bbox", "arguments": arguments}}
    action = MedSegAction(tool_calls=[call])
    address, worker = start()
    case = worker.core.source.keys[0]
    with MedSegClient(address).sync() as client:
        client.reset(case=case)
        result = client.step(action)
    expected, info, _ = direct(case, [action.turn(0).text])
    assert result.reward == expected[0] and result.metadata["valid"] == info["valid"]
    roles = [message["role"] for message in as_messages(result.observation, action.turn(0))]
    assert roles == ["tool", "user"]


def test_a_cut_answer_is_explained(start):
    address, _ = start(texts="full")
    with MedSegClient(address).sync() as client:
        client.reset(index=0)
        result = client.step(MedSegAction(answer=BOX[:-40], finish_reason="length"))
    assert "cut off" in result.observation.text and not result.metadata["valid"]


def test_volumes_are_played_with_both_images(start, direct):
    script = [call("add_bbox", slice=2, bbox_2d=[200, 200, 800, 800]), STOP]
    address, worker = start(**VOLUMES)
    case = worker.core.source.keys[0]
    with MedSegClient(address).sync() as client:
        assert len(client.reset(case=case).observation.images) == 2
        rewards, _ = play(client, script, case=case)
    assert rewards == direct(case, script, **VOLUMES)[0]


# their own tools ----------------------------------------------------------------------------------
def test_their_validator_passes_the_server(start):
    from openenv.cli._validation import validate_running_environment

    address, _ = start()
    report = validate_running_environment(address)
    failed = [c for c in report["criteria"] if c["required"] and not c["passed"]]
    assert report["passed"], failed


def get(address, path, body=None):
    request = Request(address + path, json.dumps(body).encode() if body is not None else None)
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=20) as response:
        return json.load(response)


def test_cases_are_listed_as_tasks(start):
    address, worker = start()
    keys = worker.core.source.keys
    assert [split["name"] for split in get(address, "/medseg-chat/splits")] == ["test"]
    assert get(address, "/medseg-chat/num_tasks", {"split": "test"})["num_tasks"] == len(keys)
    task = get(address, "/medseg-chat/task", {"split": "test", "index": 2})["task"]
    assert task == {"id": keys[2], "index": 2}
    with pytest.raises(HTTPError):
        get(address, "/medseg-chat/task", {"split": "test", "index": len(keys)})
    with MedSegClient(address).sync() as client:
        client.reset(split="test", index=2)
        assert client.state().case == keys[2]


@pytest.mark.slow
def test_the_command_serves_and_ends(tmp_path):
    command = [sys.executable, "-m", "medseg_agents.openenv", "--cases", "phantoms:abdomen"]
    command += ["--split", "test", "--backbone", "ellipse", "--image-size", "64", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        lines = iter(process.stderr.readline, "")
        address = next(m[0] for m in (re.search(r"http://[\d.:]+", line) for line in lines) if m)
        with MedSegClient(address).sync() as client:
            rewards, result = play(client, [BOX, STOP], seed=1)
        assert result.done and sum(rewards) > 0
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
