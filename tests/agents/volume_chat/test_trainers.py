"""Trainers of language models play and learn from volumes, both images of a turn included."""

from __future__ import annotations

import asyncio

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import typer
from medseg_agents import policies
from medseg_agents.commands.entry import add_commands
from medseg_agents.grpo.settings import GRPORun
from medseg_agents.llm.checkpoint import load_model, load_processor, read_view
from medseg_agents.llm.first_turns import write_first_turns
from medseg_agents.runs.log import read_progress
from medseg_agents.sft.config import SftConfig, SftError
from medseg_agents.sft.train import train_sft
from medseg_agents.trl.environment import make_environment
from medseg_agents.trl.rollout import ChatRollout
from medseg_agents.verl import EpisodeWorker, MedSegTool, write_rows
from PIL import Image
from transformers import GenerationConfig
from typer.testing import CliRunner

from medseg_gym.cases import load_cases
from medseg_gym.cases.volume_source import VolumeList
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.volumes import VolumeChatOptions
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import SlicePrompt, encode_volume_call

from .conftest import ENV, VIEW, options, volumes

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

BOX = {"slice": 2, "bbox_2d": [250, 250, 500, 750]}
CALL = encode_volume_call(SlicePrompt(2, AddBox(0.2505, 0.2505, 0.5005, 0.7505)))


def command(*words):
    app = typer.Typer()
    add_commands(app)
    return CliRunner().invoke(app, ["train", *map(str, words)])


def first_turns(path, chat, cases, **sizes):
    write_first_turns(path, cases, range(2), chat, **sizes)
    return path


# supervised -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_supervised_training_says_what_it_was_on_and_refuses_another(volume_caller, tmp_path):
    chat = VolumeChatOptions(max_steps=3, **VIEW)
    turns = VolumeList(volumes())
    file = first_turns(tmp_path / "volumes.parquet", chat, turns, per_image=1)
    row = pq.read_table(file).to_pylist()[0]
    assert len(row["images"]) == 2
    assert '"slice": 2' in row["messages"][1]["content"][0]["text"]
    sizes = ("--steps", 1, "--batch-size", 2, "--device", "cpu", "--log-to", "")
    out = tmp_path / "run"
    done = command("sft", "--model", "tiny", "--trajectories", file, *sizes, "--out", out)
    assert done.exit_code == 0, (done.output, done.exception)
    saved = read_view(out / "model")
    assert saved.env_id == ENV and saved.view["overview_size"] == 32
    processor = load_processor(out / "model")
    made = processor.image_processor(
        images=[np.zeros((64, 64, 3), np.uint8), np.zeros((32, 96, 3), np.uint8)]
    )
    assert made["image_grid_thw"].tolist() == [[1, 8, 8], [1, 4, 12]]  # both at their size
    assert policies.make(f"llm:{out / 'model'}").env_id == ENV

    images = load_cases("phantoms:abdomen", "train")
    chat_2d = ChatOptions(image_size=64, texts="terse", max_steps=3)
    flat = first_turns(tmp_path / "images.parquet", chat_2d, images)
    with pytest.raises(PolicyError, match=f"trained for {ENV}, and MedSegChat-v0 was asked for"):
        config = SftConfig(model=str(volume_caller), trajectories=(str(flat),), steps=1)
        train_sft(config, tmp_path / "other")
    with pytest.raises(SftError, match="a model is trained for one of them"):
        config = SftConfig(trajectories=(str(file), str(flat)), steps=1)
        train_sft(config, tmp_path / "both")


# reinforcement --------------------------------------------------------------------------------
@pytest.mark.slow
def test_grpo_trains_on_volumes(volume_caller, caller, ray_cluster, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = {
        **{"cases": "phantoms-volume", "backbone": "ellipse", "max_steps": 3, "branch": "turn"},
        **{"groups": 2, "num_generations": 2, "iterations": 2, "micro_batch": 2, "lr": 1e-3},
        **{"max_completion_length": 30, "eval_every": 2, "eval_cases": 2, "warmup": 1},
        **{"log_samples_every": 1, "log_samples": 2},
    }
    words = [w for name, value in sizes.items() for w in (f"--{name.replace('_', '-')}", value)]
    out = tmp_path / "run"
    done = command("grpo", "--env", ENV, "--model", volume_caller, *words, "--out", out)
    torch.set_num_threads(threads)
    assert done.exit_code == 0, (done.output, done.exception)
    last = {key: value for row in read_progress(out) for key, value in row.items()}
    # The learner finds the probabilities that the runner drew with: same tokens, same images.
    assert last["sampling/max_ratio_deviation"] < 1e-3
    assert {"tool_use/propagate", "tool_use/look", "val/dice"} <= last.keys()
    assert not any("mask_slices" in name for name in last)
    with Image.open(out / "samples" / "iteration-00002.png") as sheet:
        assert sheet.width > 400
    saved = read_view(out / "model")
    assert saved.env_id == ENV and saved.view == VIEW
    assert policies.make(f"llm:{out / 'model'}").env_id == ENV
    with pytest.raises(PolicyError, match=f"trained for {ENV}"):
        GRPORun(model=str(volume_caller), env="MedSegChat-v0").view()
    with pytest.raises(PolicyError, match="trained for MedSegChat-v0"):
        GRPORun(model=str(caller), env=ENV).view()


# other trainers -------------------------------------------------------------------------------
def test_trl_gets_tools_with_slices_and_both_images(volume_caller):
    made = make_environment(ENV, **options())()
    opening = made.reset(case="v0")
    assert [part["type"] for part in opening] == ["image", "image", "text"]
    env = make_envs(1, ENV, **options())
    env.reset(options={"case": ["v0"]})
    shown, *_ = env.step([CALL])
    answer = made.add_bbox(**BOX)
    assert answer[2]["text"] == shown["text"][0]
    for part, key in zip(answer, ("image", "overview"), strict=False):
        assert np.array_equal(part["image"], shown[key][0])
    for name in ("propagate_action", "look_action", "add_point"):
        assert callable(getattr(made, name))
    looked = made.look_action(slice=99)
    assert "no change" in looked[2]["text"]
    with pytest.raises(MedSegError, match="no environment that chats"):
        make_environment("MedSeg-v0")


def test_trl_rollouts_hand_on_both_images_of_every_turn(volume_caller):
    rollout = ChatRollout(30, ENV, **options())
    model, processor = load_model(volume_caller), load_processor(volume_caller)
    keys = ["v0", "v1", "v2"]
    with torch.no_grad():
        made = rollout._play(keys, model, processor, GenerationConfig(do_sample=False))
    envs = rollout.envs(3)
    for slot in range(3):
        shown = envs.images(slot)
        assert len(made["images"][slot]) == len(shown) == 2 * made["outcome"][slot].turns
        assert all(np.array_equal(a, b) for a, b in zip(made["images"][slot], shown, strict=True))
        image = model.config.image_token_id
        tokens = made["prompt_ids"][slot] + made["completion_ids"][slot]
        assert tokens.count(image) == 28 * made["outcome"][slot].turns


def test_verl_shows_both_images(tmp_path):
    worker = EpisodeWorker(env_id=ENV, **options())
    turn = asyncio.run(worker.step("one", "v1", CALL))
    env = make_envs(1, ENV, **options())
    env.reset(options={"case": ["v1"]})
    shown, *_ = env.step([CALL])
    assert turn.text == shown["text"][0] and len(turn.images) == 2
    for image, key in zip(turn.images, ("image", "overview"), strict=True):
        assert np.array_equal(image, shown[key][0])
    tool = MedSegTool({"tool": "look_action", "options": {"env_id": ENV, **options()}})
    schema = tool.get_openai_tool_schema()
    function = schema["function"] if isinstance(schema, dict) else schema.function.model_dump()
    assert "slice" in function["parameters"]["properties"]
    rows = pq.read_table(write_rows(tmp_path / "rows.parquet", env_id=ENV, **options()))
    for row in rows.to_pylist():
        assert len(row["images"]) == 2 and row["prompt"][-1]["content"].count("<image>") == 2
        assert "propagate_action" in row["extra_info"]["tools_kwargs"]
