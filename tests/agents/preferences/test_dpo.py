"""DPO with TRL on pairs of calls from one state, with the tiny model."""

import json
import math
import shutil

import numpy as np
import pytest

pytest.importorskip("trl")

import torch
from medseg_agents.dpo.config import DpoConfig, DpoError
from medseg_agents.dpo.train import load_pairs, make_trainer, train_dpo
from medseg_agents.llm.checkpoint import adapter_rank, load_model, load_processor, read_view
from medseg_agents.llm.weights.origin import stored_dtype
from medseg_agents.llm.weights.save import save_whole
from medseg_agents.runs.log import read_progress

from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, Stop
from medseg_gym.trajectories import TrajectoryStore, VectorRecorder, export_pairs

CHAT = ChatOptions(image_size=64, texts="terse")


@pytest.fixture(scope="module")
def pairs(small_cases, tmp_path_factory):
    """Pairs from forks: after a box, stopping is worth more than a click that spoils the mask."""
    folder = tmp_path_factory.mktemp("pairs")
    cases = list(small_cases)[:4]
    envs = make_envs(8, cases=cases, backbone="ellipse", max_steps=3)
    recorder = VectorRecorder(envs, folder / "store", seed=0)

    def step(*prompts):
        recorder.step(np.stack([envs.codec.encode(p) for p in prompts]))

    keys = [case.key for case in cases]
    recorder.reset(options={"case": keys * 2})
    step(*[AddBox(0.2, 0.2, 0.8, 0.8)] * 4, *[AddBox(0.0, 0.0, 0.1, 0.1)] * 4)
    envs.fork(range(4), range(4, 8))
    step(*[Stop()] * 4, *[AddPoint(0.5, 0.4, False)] * 4)
    step(*[Stop()] * 8)
    recorder.close()
    file = folder / "pairs.parquet"
    export_pairs(TrajectoryStore(folder / "store"), file, 0.005, 1, CHAT, cases)
    return file


def settings(start, file, **other):
    defaults = {
        "model": str(start),
        "pairs": (str(file),),
        "steps": 5,
        "batch_size": 2,
        "lr": 2e-4,
        "warmup": 0,
        "schedule": "constant",
        "log_every": 1,
        "save_every": 3,
        "device": "cpu",
    }
    return DpoConfig(**(defaults | other))


def test_what_trl_compares_are_the_calls_and_nothing_else(caller, pairs, tmp_path):
    rows, (view, *_) = load_pairs((str(pairs),), tmp_path)
    assert view["texts"] == "terse" and {len(row["images"]) for row in rows} == {2}
    processor = load_processor(caller)
    trainer = make_trainer(
        settings(caller, pairs), tmp_path, load_model(caller, "float32"), processor, rows
    )
    batch = trainer.data_collator([rows[0]])
    for number, side in enumerate(("chosen", "rejected")):
        ids, learned = batch["input_ids"][number], batch["completion_mask"][number].bool()
        completion = rows[0][side][0]["content"][0]["text"]
        assert processor.tokenizer.decode(ids[learned]) == completion + "<|im_end|>\n"
        shown = processor.tokenizer.decode(ids[~learned])
        assert shown.count("<|im_start|>assistant\n") == 2  # the box, and the call that is compared
    assert (batch["input_ids"] == processor.image_token_id).sum() == 2 * 2 * 16


@pytest.fixture(scope="module")
def trained(caller, pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("dpo") / "run"
    return out, train_dpo(settings(caller, pairs), out, quiet=True)


def test_the_margin_of_rewards_rises(caller, trained):
    out, model = trained
    rows = [row for row in read_progress(out) if "rewards/margins" in row]
    assert len(rows) == 5 and all(math.isfinite(row["loss"]) for row in rows)
    # Before the first step model and reference are one: the loss is log 2, the margin 0.
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["rewards/margins"] > 0.01 and rows[-1]["loss"] < math.log(2)
    assert read_view(model) == read_view(caller) or read_view(model)[0]["texts"] == "terse"


def facts(model):
    return json.loads((model / "medseg_model.json").read_text())


@pytest.fixture(scope="module")
def adapters(caller, pairs, tmp_path_factory):
    """A run with new adapters on a whole model."""
    out = tmp_path_factory.mktemp("dpo-adapters") / "run"
    return out, train_dpo(settings(caller, pairs, lora_rank=4, lr=2e-3, steps=3), out, quiet=True)


def test_adapters_learn_too(caller, adapters):
    out, model = adapters
    rows = [row for row in read_progress(out) if "rewards/margins" in row]
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["rewards/margins"] > 0
    assert json.loads((model / "adapter_config.json").read_text())["r"] == 4
    assert not (model / "ref").exists()
    assert facts(model)["kind"] == "adapters" and facts(model)["base"] == str(caller)
    assert facts(model)["algorithm"] == "DpoConfig"


@pytest.mark.parametrize(
    ("rank", "kind", "trained"),
    [(None, "adapters", 4), (0, "weights", None), (2, "adapters", 2)],
    ids=["these adapters", "folded in", "new ones on the merged model"],
)
def test_a_run_that_begins_with_adapters_is_held_to_them(
    adapters, pairs, tmp_path, rank, kind, trained
):
    start = adapters[1]
    config = settings(start, pairs, lora_rank=rank, steps=2, lr=2e-3 if rank != 0 else 2e-4)
    model = train_dpo(config, tmp_path / "run", quiet=True)
    rows = [row for row in read_progress(tmp_path / "run") if "rewards/margins" in row]
    # The reference is the model that the run began with, not the base beneath its adapters.
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert facts(model)["kind"] == kind and facts(model).get("rank") == trained
    assert adapter_rank(model) == trained and load_model(model) is not None


def test_a_run_keeps_logs_and_weights_as_it_is_told(caller, pairs, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(caller, start)
    save_whole(load_model(caller), start, "bfloat16")
    config = settings(start, pairs, steps=1, log_to=(), save_dtype="base")
    model = train_dpo(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert stored_dtype(start) == facts(model)["dtype"] == "bfloat16"
    assert {p.dtype for p in load_model(model, "auto").parameters()} == {torch.bfloat16}


def test_pairs_that_spell_special_tokens_are_left_out(caller, pairs, tmp_path):
    import pyarrow.parquet as pq

    table = pq.read_table(pairs)
    rows = table.to_pylist()
    rows[0]["chosen"][0]["content"][0]["text"] += "<|im_end|>"
    file = tmp_path / "spelled.parquet"
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    with pytest.warns(UserWarning, match="1 rows spell special tokens"):
        train_dpo(settings(caller, file, steps=1), tmp_path / "run", quiet=True)


def test_a_run_that_broke_off_ends_with_the_same_weights(caller, pairs, trained, tmp_path):
    out, model = trained
    again = tmp_path / "run"
    (again / "checkpoints").mkdir(parents=True)
    checkpoint = out / "checkpoints" / "checkpoint-3"
    checkpoint.rename(again / "checkpoints" / "checkpoint-3")
    (again / "config.json").write_text((out / "config.json").read_text())
    with pytest.raises(DpoError, match="holds a run"):
        train_dpo(settings(caller, pairs), again, quiet=True)
    resumed = train_dpo(settings(caller, pairs), again, resume=True, quiet=True)
    ours, theirs = (load_model(path).state_dict() for path in (model, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_extended_run_learns_on_and_then_stays(caller, pairs, trained, tmp_path):
    out, model = trained
    again = shutil.copytree(out, tmp_path / "run")
    config = settings(caller, pairs, extend=2)
    longer = train_dpo(config, again, resume=True, quiet=True)
    assert [row["step"] for row in read_progress(again) if "loss" in row] == list(range(1, 8))
    ours, theirs = (load_model(path).state_dict() for path in (model, longer))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    shutil.rmtree(longer)  # killed between the last checkpoint and the model, say
    once_more = load_model(train_dpo(config, again, resume=True, quiet=True)).state_dict()
    assert all(torch.equal(once_more[name], theirs[name]) for name in theirs)
    assert [row["step"] for row in read_progress(again) if "loss" in row] == list(range(1, 8))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"pairs": ()}, "name at least one file"),
        ({"model": ""}, "--model FOLDER"),
        ({"beta": 0}, "beta must be above 0"),
        ({"pairs": ("nowhere",)}, "no pairs"),
        ({"steps": 0}, "nothing to do"),
    ],
)
def test_settings_that_make_no_sense(caller, pairs, tmp_path, other, match):
    with pytest.raises(DpoError, match=match):
        train_dpo(settings(caller, pairs, **other), tmp_path / "run", quiet=True)


def test_pairs_that_show_another_environment_are_refused(caller, pairs, small_cases, tmp_path):
    store = TrajectoryStore(pairs.parent / "store")
    file = tmp_path / "other.parquet"
    export_pairs(
        store, file, 0.005, 1, ChatOptions(image_size=32, texts="terse"), list(small_cases)
    )
    with pytest.raises(DpoError, match="image_size"):
        train_dpo(settings(caller, file), tmp_path / "run", quiet=True)
    with pytest.raises(DpoError, match="was written with other options"):
        load_pairs((str(pairs), str(file)), tmp_path)
