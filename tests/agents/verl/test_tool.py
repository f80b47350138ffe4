"""verl's protocol, driven as its agent loop drives it; against verl's own classes where it is."""

import asyncio
import gc
import json
import re
import threading
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from medseg_agents.verl import EpisodeWorker, MedSegTool, compute_score, write_rows
from medseg_agents.verl.base import HAVE_VERL
from medseg_agents.verl.tool import FIELD, worker_of

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cases import Case
from medseg_gym.errors import BackboneError, CaseError, PolicyError
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, encode_tool_call

VIEW = {"image_size": 64, "texts": "terse", "max_steps": 3}
BOX, CLICK = [250, 250, 750, 750], {"point_2d": [500, 500], "point_type": "positive"}


class Counting(EllipseBackbone):
    """Counts decoder calls, and can be told to fail."""

    def __init__(self):
        super().__init__()
        self.calls, self.rows, self.broken = 0, 0, False

    def decode(self, rows):
        if self.broken:
            raise BackboneError("the segmenter is gone; start it again")
        self.calls += 1
        self.rows += len(rows)
        return super().decode(rows)


class AgentData:
    """The part of verl's own `AgentData` that a tool reads."""

    def __init__(self, request_id):
        self.request_id, self.extra_fields = request_id, {}


@pytest.fixture
def backbone():
    return Counting()


@pytest.fixture
def tools(backbone, small_cases):
    options = {"cases": small_cases, "backbone": backbone, "max_delay_ms": 20.0, **VIEW}
    names = ("add_bbox", "add_point", "undo_action", "clear_action", "stop_action")
    return {
        name: MedSegTool({"type": "native", "tool": name, "options": options}) for name in names
    }


async def call(tools, rollout, case, name, **arguments):
    """One call as `ToolAgentLoop._call_tool` makes it."""
    tool = tools[name]
    instance, _ = await tool.create(create_kwargs={"case": case})
    try:
        return await tool.execute(instance, arguments, agent_data=rollout)
    finally:
        await tool.release(instance)


def score(rollout, answers):
    """As `NaiveRewardManager` asks, for a rollout that ended after so many answers."""
    info = {"num_turns": 2 * answers, **rollout.extra_fields}
    return compute_score("medseg_gym", "", "", info, reward_router_address=None)


def test_many_rollouts_share_decoder_calls_and_a_click_sees_the_mask_of_the_box(
    tools, backbone, small_cases
):
    rollouts = [AgentData(f"r{i}") for i in range(24)]
    cases = [small_cases[i % 3].key for i in range(24)]

    async def play(rollout, case):
        first = await call(tools, rollout, case, "add_bbox", bbox_2d=BOX)
        second = await call(tools, rollout, case, "add_point", **CLICK)
        last = await call(tools, rollout, case, "stop_action")
        return first, second, last

    async def everyone():
        return await asyncio.gather(*map(play, rollouts, cases))

    played = asyncio.run(everyone())
    assert backbone.rows == 48 and backbone.calls <= 6  # 2 if all arrive together
    worker = tools["add_bbox"].worker
    assert all(tool.worker is worker for tool in tools.values()) and worker.batches <= 9

    envs = make_envs(1, "MedSegChat-v0", cases=small_cases, backbone="ellipse", **VIEW)
    words = [encode_tool_call(AddBox(0.2505, 0.2505, 0.7505, 0.7505))]
    words += [encode_tool_call(AddPoint(0.5005, 0.5005, True)), encode_tool_call_stop()]
    for rollout, case, turns in zip(rollouts, cases, played, strict=True):
        standing = turns[-1][2]
        envs.reset(options={"case": case})
        total = 0.0
        for answer, (response, reward, _) in zip(words, turns, strict=True):
            shown, rewards, ended, *_ = envs.step([answer])
            assert reward == pytest.approx(float(rewards[0]), abs=1e-3)
            assert response.text == shown["text"][0]
            assert bool(response.image) is not bool(ended[0])
            if response.image:
                assert np.array_equal(np.asarray(response.image[0]), shown["image"][0])
            total += float(rewards[0])
        assert standing["stopped"] and standing["valid"] == 3
        results = score(rollout, answers=4)  # the model says something after Stop, for nothing
        assert results["score"] == pytest.approx(total, abs=1e-3)
        assert results["dice"] == pytest.approx(standing["dice"]) and results["stopped"] == 1


def encode_tool_call_stop():
    return '<tool_call>{"name": "stop_action", "arguments": {}}</tool_call>'


def test_two_calls_of_one_turn_are_done_one_after_the_other(tools, backbone):
    rollout = AgentData("both")

    async def both():
        return await asyncio.gather(
            call(tools, rollout, "sq", "add_bbox", bbox_2d=BOX),
            call(tools, rollout, "sq", "add_point", **CLICK),
        )

    first, second = asyncio.run(both())
    assert (first[2]["turns"], second[2]["turns"]) == (1, 2)
    assert backbone.calls == 2


def test_the_event_loop_goes_on_while_the_segmenter_works(tools, backbone, monkeypatch):
    decode = backbone.decode
    decoding, enough = threading.Event(), threading.Event()

    def slow(rows):  # until the loop has gone round, which it cannot where it waits for this
        decoding.set()
        assert enough.wait(20), "the event loop stood still"
        return decode(rows)

    monkeypatch.setattr(backbone, "decode", slow)

    async def watched():
        task = asyncio.create_task(call(tools, AgentData("slow"), "sq", "add_bbox", bbox_2d=BOX))
        rounds = 0
        while not task.done():
            await asyncio.sleep(0.005)
            rounds += decoding.is_set()
            if rounds == 20:
                enough.set()
        await task

    asyncio.run(watched())
    assert enough.is_set()


def test_wrong_arguments_cost_a_step_and_are_explained(tools):
    rollout = AgentData("wrong")

    async def play():
        bad = await call(tools, rollout, "sq", "add_bbox", corners=[1, 2])
        await call(tools, rollout, "sq", "undo_action")
        last = await call(tools, rollout, "sq", "add_bbox", bbox_2d=BOX)
        after = await call(tools, rollout, "sq", "add_bbox", bbox_2d=BOX)
        return bad, last, after

    bad, last, after = asyncio.run(play())
    assert bad[0].text == "no change, 2 left." and bad[1] == pytest.approx(-0.01)
    assert last[2]["done"] and not last[2]["stopped"] and last[2]["valid"] == 1
    assert after[0].text == "over." and after[1] == 0 and not after[0].image
    assert score(rollout, 5)["score"] == pytest.approx(last[2]["episode_return"])


def test_answers_that_verl_refuses_cost_what_refused_says(tools):
    rollout = AgentData("mute")
    assert score(rollout, answers=1)["score"] == pytest.approx(-0.01)
    assert score(rollout, answers=1)["called"] == 0
    response = asyncio.run(call(tools, rollout, "sq", "add_bbox", bbox_2d=BOX))
    results = score(rollout, answers=2)  # then words without a call
    assert results["score"] == pytest.approx(response[1] - 0.01) and results["turns"] == 2
    assert results["valid_rate"] == 0.5
    # No more than the episode had steps for.
    assert score(rollout, answers=9)["score"] == pytest.approx(response[1] - 0.02)
    assert compute_score("", "", "", None, refused=-1.0)["score"] == 0.0


def test_a_failing_segmenter_is_no_score(tools, backbone):
    rollout = AgentData("dead")
    asyncio.run(call(tools, rollout, "sq", "add_bbox", bbox_2d=BOX))
    backbone.broken = True
    with pytest.raises(BackboneError, match="gone"):
        asyncio.run(call(tools, rollout, "sq", "add_point", **CLICK))
    backbone.broken = False
    with pytest.raises(PolicyError, match="earlier call"):  # verl would have gone on
        asyncio.run(call(tools, rollout, "sq", "add_point", **CLICK))
    with pytest.raises(PolicyError, match="no reward: BackboneError"):
        score(rollout, answers=3)
    assert asyncio.run(call(tools, AgentData("next"), "sq", "add_bbox", bbox_2d=BOX))[1] > -1


def test_a_wrong_case_is_its_rollouts_own_fault(tools):
    good, bad, none = AgentData("good"), AgentData("bad"), AgentData("none")

    async def together():
        return await asyncio.gather(
            call(tools, good, "sq", "add_bbox", bbox_2d=BOX),
            call(tools, bad, "no such case", "add_bbox", bbox_2d=BOX),
            call(tools, none, None, "add_bbox", bbox_2d=BOX),
            return_exceptions=True,
        )

    fine, missing, unnamed = asyncio.run(together())
    assert fine[2]["turns"] == 1
    assert isinstance(missing, CaseError) and "no such case" in bad.extra_fields[FIELD]["failure"]
    assert isinstance(unnamed, PolicyError) and "tools_kwargs" in str(unnamed)
    with pytest.raises(PolicyError, match="plays case"):
        asyncio.run(call(tools, good, "wide", "add_bbox", bbox_2d=BOX))


def test_episodes_end_with_their_rollouts(tools):
    worker = tools["add_bbox"].worker
    rollouts = [AgentData(f"short{i}") for i in range(5)]

    async def everyone(rollouts):
        await asyncio.gather(*(call(tools, r, "sq", "add_bbox", bbox_2d=BOX) for r in rollouts))

    asyncio.run(everyone(rollouts))
    assert len(worker._episodes) == 5
    del rollouts
    gc.collect()
    asyncio.run(everyone([AgentData("later")]))
    assert len(worker._episodes) == 1 and len(worker.core.engine.episodes) == 5
    assert sum(e is not None for e in worker.core.engine.episodes) == 1
    assert not any(tool._cases for tool in tools.values()) and not worker._holders


def test_loops_that_name_instances_by_episode(tools):
    """One id for all tools from the first create to the last release, and no agent data."""

    async def play():
        for tool in tools.values():
            assert (await tool.create("episode", case="sq"))[0] == "episode"
        _, first, _ = await tools["add_bbox"].execute("episode", {"bbox_2d": BOX})
        _, second, standing = await tools["add_point"].execute("episode", CLICK)
        total = [await tool.calc_reward("episode") for tool in tools.values()]
        for tool in tools.values():
            await tool.release("episode")
        return first + second, standing, total

    rewards, standing, total = asyncio.run(play())
    assert standing["turns"] == 2
    assert total == pytest.approx([rewards] * len(tools))
    worker = tools["add_bbox"].worker
    asyncio.run(worker.step("another", "sq", ""))
    assert set(worker._episodes) == {"another"}


def test_what_cannot_be_is_refused(small_cases):
    with pytest.raises(PolicyError, match="add_bbox, add_point"):
        MedSegTool({"tool": "segment", "options": {"cases": small_cases}})
    with pytest.raises(PolicyError, match="stop_action"):
        MedSegTool({"tool": "add_bbox", "options": {"tools": ["stop"]}})
    with pytest.raises(PolicyError, match="max_batch"):
        EpisodeWorker(max_batch=0)


def test_one_worker_for_one_configuration():
    options = {"cases": "phantoms", "backbone": "ellipse", "image_size": 64}
    assert worker_of(dict(options)) is worker_of(dict(reversed(options.items())))
    assert worker_of(options) is not worker_of({**options, "max_steps": 2})


def test_rows_show_what_the_environment_shows(tmp_path, small_cases):
    options = {"cases": small_cases, **VIEW, "texts": "full", "tools": ("box", "stop")}
    path = write_rows(tmp_path / "rows.parquet", ["sq", "tall"], **options)
    rows = pq.read_table(path).to_pylist()
    envs = make_envs(2, "MedSegChat-v0", backbone="ellipse", **options)
    shown, _ = envs.reset(options={"case": ["sq", "tall"]})
    for number, row in enumerate(rows):
        assert row["prompt"][-1]["content"] == "<image>" + shown["text"][number]
        assert row["prompt"][0]["content"] == envs.system_messages[0]["content"][0]["text"]
        kwargs = row["extra_info"]["tools_kwargs"]
        assert kwargs == {
            name: {"create_kwargs": {"case": ("sq", "tall")[number]}}
            for name in ("add_bbox", "stop_action")
        }
        assert row["agent_name"] == "tool_agent" and len(row["images"]) == 1


def test_it_is_importable_without_verl():
    if find_spec("verl") is not None:
        pytest.skip("verl is installed")
    assert not HAVE_VERL  # and every other test here has imported it


# verl 0.9 imports Ray's state from where it used to be
@pytest.mark.filterwarnings("ignore:Ray state API is no longer experimental:DeprecationWarning")
def test_in_verls_own_agent_loop(tools):
    """`ToolAgentLoop._call_tool` of verl itself: what reaches the model, and what the reward."""
    pytest.importorskip("verl")
    from verl.experimental.agent_loop.tool_agent_loop import AgentData as VerlData
    from verl.experimental.agent_loop.tool_agent_loop import FunctionCall, ToolAgentLoop
    from verl.tools.base_tool import BaseTool

    loop = ToolAgentLoop.__new__(ToolAgentLoop)
    loop.tools, loop.max_tool_response_length = tools, 256
    data = VerlData([], [], [], None, None, {}, "request", {})
    kwargs = {name: {"create_kwargs": {"case": "sq"}} for name in tools}
    assert all(isinstance(tool, BaseTool) and tool.name == name for name, tool in tools.items())

    async def say(name, **arguments):
        call = FunctionCall(name=name, arguments=json.dumps(arguments))
        return await loop._call_tool(call, kwargs, data)

    async def play():
        return await say("add_bbox", bbox_2d=BOX), await say("stop_action"), await say("guess")

    (box, gain, _), (stop, _, _), (unknown, _, _) = asyncio.run(play())
    assert box.image[0].size == (64, 64) and box.text == "2 left."
    assert stop.text == "over." and "Unknown function" in unknown.text
    assert score(data, 4)["score"] == pytest.approx(gain)
    assert SimpleNamespace(**data.extra_fields[FIELD]).stopped


def test_in_verls_own_configuration_and_dataset(tmp_path):
    pytest.importorskip("verl")
    from medseg_agents.llm.tiny_model import TinyConfig, build_processor
    from omegaconf import OmegaConf
    from verl.tools.tool_registry import initialize_tools_from_config
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.import_utils import load_extern_object

    (tmp_path / "tools.yaml").write_text(yaml_of_the_page())
    made = initialize_tools_from_config(str(tmp_path / "tools.yaml"))
    assert len({id(tool.worker) for tool in made}) == 1 and len(made) == 5
    score_of = load_extern_object(
        module_path="pkg://medseg_agents.verl", object_name="compute_score"
    )
    assert score_of("", "", "", {"num_turns": 2})["score"] == -0.01

    path = write_rows(tmp_path / "rows.parquet", ["s0"], cases=draws("s0"), **VIEW)
    processor = build_processor(["blob, 3 calls."], TinyConfig(image_size=64))
    config = OmegaConf.create({"cache_dir": str(tmp_path), "filter_overlong_prompts": False})
    row = RLHFDataset([str(path)], processor.tokenizer, config, processor)[0]
    assert row["tools_kwargs"]["add_bbox"]["create_kwargs"] == {"case": "s0"}
    content = row["raw_prompt"][-1]["content"]
    assert [part["type"] for part in content] == ["image", "text"]
    assert content[0]["image"].size == (64, 64)


def draws(key):
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return (Case(key, image, image[..., 0] > 200, target="blob"),)


def yaml_of_the_page():
    """The configuration that the page shows, on synthetic cases and the image-blind segmenter."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "trl_verl.md").read_text()
    (text,) = re.findall(r"```yaml\n(tools:.*?)```", page, re.DOTALL)
    return re.sub(r"(cases|backbone): .*", lambda m: f"{m[1]}: {SMALL[m[1]]}", text)


SMALL = {"cases": "phantoms", "backbone": "ellipse"}
