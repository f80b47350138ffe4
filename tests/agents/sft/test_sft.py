import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("trl")

from medseg_agents import policies
from medseg_agents.arrays.optimisers import MuonWithAdamW, rate_over_run
from medseg_agents.llm.checkpoint import load_model, load_processor, read_view
from medseg_agents.llm.first_turns import first_answer, write_first_turns
from medseg_agents.llm.weights.origin import read_facts
from medseg_agents.runs.log import read_progress
from medseg_agents.sft.config import SftConfig, SftError
from medseg_agents.sft.data import leave_out_spelled, load_conversations
from medseg_agents.sft.train import make_trainer, train_sft
from medseg_agents.sft.trainer_arguments import steps_of
from safetensors.torch import load_file

from medseg_gym.cases import load_cases
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.messages import text_message
from medseg_gym.envs.volumes import VolumeChatOptions
from medseg_gym.errors import PolicyError
from medseg_gym.trajectories.export.export import export_store, read_chat_view
from medseg_gym.trajectories.recording.generate import GenerateOptions, generate_episodes

CHAT = ChatOptions(image_size=64, texts="terse", max_steps=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Real expert episodes and first turns, exported."""
    folder = tmp_path_factory.mktemp("data")
    options = GenerateOptions(
        cases="phantoms:abdomen",
        annotator="hybrid",
        backbone="ellipse",
        limit=6,
        num_envs=6,
        max_steps=4,
    )
    export_store(
        generate_episodes(folder / "store", options), folder / "episodes.parquet", chat=CHAT
    )
    write_first_turns(folder / "first_turns.parquet", "phantoms:abdomen", range(10, 14), CHAT)
    return folder


def settings(data, **other):
    defaults = {
        "trajectories": (str(data / "episodes.parquet"), str(data / "first_turns.parquet")),
        "steps": 4,
        "batch_size": 2,
        "optimiser": "muon",
        "lr": 2e-3,
        "warmup": 1,
        "save_every": 2,
        "log_every": 1,
        "device": "cpu",
    }
    return SftConfig(**(defaults | other))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    model = train_sft(settings(data), out, quiet=True)
    return out, model


def test_the_loss_is_on_the_assistants_tokens_and_no_others(data, trained, tmp_path):
    _, model = trained
    config = settings(data)
    rows, (view, _, env_id) = load_conversations(config.trajectories, tmp_path)
    assert view == read_chat_view(data / "episodes.parquet") and view["texts"] == "terse"
    assert env_id == "MedSegChat-v0"
    processor = load_processor(model)
    trainer = make_trainer(config, tmp_path, load_model(model), processor, rows)
    tokenizer = processor.tokenizer
    seen = 0
    for row in rows:
        batch = trainer.data_collator([row])
        ids, labels = batch["input_ids"][0], batch["labels"][0]
        learned = labels != -100
        assert torch.equal(ids[learned], labels[learned])
        completions = [
            part["text"] + "<|im_end|>\n"
            for message in row["messages"]
            for part in message["content"]
            if message["role"] == "assistant"
        ]
        assert tokenizer.decode(ids[learned]) == "".join(completions)
        rest = tokenizer.decode(ids[~learned])
        assert "<tool_call>" not in rest and rest.count("<|im_start|>assistant\n") == len(
            completions
        )
        images = ids == processor.image_token_id
        assert int(images.sum()) == 16 * len(row["images"]) and not learned[images].any()
        seen += len(completions)
    assert seen > 16  # more than the first turns


def test_training_writes_a_policy_that_is_shown_what_it_was_trained_on(data, trained):
    out, model = trained
    rows = read_progress(out)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 4 and losses[-1] < losses[0]
    header = (out / "progress.csv").read_text().splitlines()[0].split(",")
    assert header[:3] == ["step", "seconds", "cpu_seconds"] and "loss" in header
    assert list((out / "tensorboard").iterdir())
    view = read_view(model).view
    assert view["image_size"] == 64 and view["texts"] == "terse"
    assert policies.make(f"llm:{model}").view == view
    start = load_file(out / "start" / "model.safetensors")
    end = load_file(model / "model.safetensors")
    assert all(not torch.equal(start[name], end[name]) for name in start if "weight" in name)


@pytest.mark.slow
def test_cases_are_played_at_every_checkpoint_and_shown(data, tmp_path):
    out = tmp_path / "run"
    changed = {"play_cases": "phantoms:abdomen", "play_count": 2, "play_backbone": "ellipse"}
    train_sft(settings(data, **changed), out, quiet=True)
    rows = [row for row in read_progress(out) if "val/dice" in row]
    assert [row["step"] for row in rows] == [2, 4]
    sheets = sorted((out / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == ["step-00002.png", "step-00004.png"]


def test_a_run_goes_on_with_the_same_settings_only(data, trained):
    out, model = trained
    with pytest.raises(SftError, match="--resume"):
        train_sft(settings(data), out)
    with pytest.raises(SftError, match=r"other settings.*lr"):
        train_sft(settings(data, lr=1e-3), out, resume=True)
    assert train_sft(settings(data), out, resume=True) == model


@pytest.mark.parametrize(("kind", "rates"), [("hold", [0.05, 0.05]), ("stretch", [0.4, 0.2])])
def test_an_extended_run_holds_its_rate_or_stretches_it(data, trained, tmp_path, kind, rates):
    out = shutil.copytree(trained[0], tmp_path / "run")
    changed = {"optimiser": "adamw", "schedule": "linear", "steps": 4, "epochs": 1.0}
    assert train_sft(settings(data), out, resume=True) == out / "model"  # finished: left alone
    first = train_sft(settings(data, **changed), tmp_path / "linear", quiet=True)
    longer = settings(data, **changed, extend=2, extend_schedule=kind)
    assert train_sft(longer, tmp_path / "linear", resume=True, quiet=True) == first
    rows = [row for row in read_progress(tmp_path / "linear") if "learning_rate" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["learning_rate"] / 2e-3 for row in rows[-2:]] == pytest.approx(rates, abs=0.06)


_RUN = """
import sys, json, torch
torch.set_num_threads(1)
from medseg_agents.sft.config import SftConfig
from medseg_agents.sft.train import train_sft
train_sft(SftConfig(**json.loads(sys.argv[1])), sys.argv[2], resume=True, quiet=True)
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_left_alone(data, trained, tmp_path):
    _, alone = trained
    config = settings(data)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", _RUN, json.dumps(vars(config)), str(out)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        mark = out / "checkpoints" / "checkpoint-2" / "whole"
        deadline = time.monotonic() + 300
        while not mark.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "model").exists()
    torn = out / "checkpoints" / "checkpoint-3"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = train_sft(config, out, resume=True, quiet=True)
    torch.set_num_threads(threads)
    assert not torn.exists()
    ours, theirs = (load_file(path / "model.safetensors") for path in (model, alone))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    steps = [row["step"] for row in read_progress(out)]
    assert steps == [1, 2, 3, 4, 4]


def test_adapters_are_trained_alone(data, trained, tmp_path):
    _, model = trained
    config = settings(data, model=str(model), lora_rank=2, optimiser="adamw", steps=2, lr=1e-2)
    config = replace(config, validation=(str(data / "first_turns.parquet"),))
    adapters = train_sft(config, tmp_path / "run", quiet=True)
    assert (adapters / "adapter_config.json").is_file()
    assert not (adapters / "model.safetensors").exists()
    base, merged = load_model(model), load_model(adapters, merge=True)
    changed = [
        name
        for (name, ours), theirs in zip(
            base.state_dict().items(), merged.state_dict().values(), strict=True
        )
        if not torch.equal(ours, theirs)
    ]
    assert changed and all("proj" in name or "fc" in name or "qkv" in name for name in changed)
    assert any("eval_loss" in row for row in read_progress(tmp_path / "run"))
    assert load_processor(adapters).tokenizer.vocab_size


def test_first_turns_ask_about_all_that_is_known_of_an_image(tmp_path):
    spec, file = "phantoms:abdomen?position=random", tmp_path / "turns.parquet"
    write_first_turns(file, spec, range(10, 22), CHAT, questions=7)
    source = load_cases(spec, "train")
    stops = others = 0
    for number, row in zip(range(10, 22), pq.read_table(file).to_pylist(), strict=True):
        texts = [message["content"][-1]["text"] for message in row["messages"]]
        assert len(texts) == 14 and len(row["images"]) == 1
        masks = dict(source.outlines(4 * number))
        cases = {source[4 * number + k].target for k in range(4)}
        for asked, answer in zip(texts[::2], texts[1::2], strict=True):
            target = asked.removesuffix(f", {CHAT.max_steps} calls.")
            assert answer == first_answer(masks[target])
            others += target not in cases
            stops += not masks[target].any()
    assert 12 < others and 12 < stops < 42
    volumes = VolumeChatOptions(max_steps=3)
    with pytest.raises(PolicyError, match="questions=2 asks about targets of images"):
        write_first_turns(file, "phantoms-volume", range(1), volumes, questions=2)


def test_adapters_go_on_being_trained(data, trained, tmp_path):
    _, model = trained
    lora = {"optimiser": "adamw", "steps": 1, "lr": 1e-2}
    first = train_sft(
        settings(data, model=str(model), lora_rank=2, **lora), tmp_path / "a", quiet=True
    )
    again = train_sft(settings(data, model=str(first), **lora), tmp_path / "b", quiet=True)
    before, after = (load_file(path / "adapter_model.safetensors") for path in (first, again))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert read_facts(again)["base"] == str(model) and read_facts(again)["rank"] == 2
    assert read_facts(again)["started_from"] == str(first)


@pytest.mark.parametrize("save_dtype", ["float32", "base"])
def test_a_bfloat16_checkpoint_is_trained_in_float32(data, trained, tmp_path, save_dtype):
    _, model = trained
    start = tmp_path / "bf16"
    load_model(model).bfloat16().save_pretrained(start)
    load_processor(model).save_pretrained(start)
    config = settings(
        data, model=str(start), optimiser="adamw", lr=1e-6, steps=2, save_dtype=save_dtype
    )
    end = train_sft(config, tmp_path / "run", quiet=True)
    before, after = (load_file(path / "model.safetensors") for path in (start, end))
    layers = [name for name in before if "layers" in name and "weight" in name]
    moved = sum(int((before[n].float() != after[n].float()).sum()) for n in layers)
    share = moved / sum(before[n].numel() for n in layers)
    kind = torch.float32 if save_dtype == "float32" else torch.bfloat16
    assert {tensor.dtype for tensor in after.values()} == {kind}
    assert share > 0.9 if save_dtype == "float32" else share < 0.1, share


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize(("rows", "batch"), [(100, 8), (7, 2), (64, 64)])
@pytest.mark.parametrize(("accumulate", "epochs"), [(1, 1.0), (3, 1.5)])
def test_the_schedule_counts_steps_as_the_processes_take_them(
    rows, batch, accumulate, epochs, processes
):
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    config = SftConfig(trajectories=("x",), batch_size=batch, accumulate=accumulate, epochs=epochs)
    sampler = BatchSampler(SequentialSampler(range(rows)), batch, drop_last=False)
    shard = BatchSamplerShard(sampler, num_processes=processes, process_index=0)
    per_epoch = max(1, -(-len(shard) // accumulate))
    assert steps_of(config, rows, processes) == math.ceil(epochs * per_epoch)
    fixed = replace(config, steps=17)
    assert steps_of(fixed, rows, processes) == 17


def test_the_schedule_is_as_long_as_the_run(data, trained, tmp_path):
    _, model = trained
    config = settings(data, steps=None, epochs=1.5, batch_size=4, accumulate=2)
    rows, _ = load_conversations(config.trajectories, tmp_path)
    trainer = make_trainer(config, tmp_path, load_model(model), load_processor(model), rows)
    values = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert values[-1] == steps_of(config, len(rows))


@pytest.mark.slow
def test_two_processes_end_their_schedule_with_the_run(data, trained, tmp_path):
    _, model = trained
    config = settings(
        data,
        model=str(model),
        **{"optimiser": "adamw", "steps": None, "epochs": 1.0, "batch_size": 2, "warmup": 0},
        **{"schedule": "linear", "final_rate": 0.0, "save_every": 100, "lr": 1e-3},
    )
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        *(str(tmp_path / "run.py"), json.dumps(vars(config)), str(out)),
    ]
    (tmp_path / "run.py").write_text(_RUN.replace("resume=True, ", ""))
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows, _ = load_conversations(config.trajectories, tmp_path)
    steps = steps_of(config, len(rows), 2)
    rates = [row["learning_rate"] for row in read_progress(out) if "loss" in row]
    assert len(rates) == steps < steps_of(config, len(rows))
    assert rates[-1] == pytest.approx(1e-3 / steps)  # of the last step, one before none is left
    assert (out / "model" / "model.safetensors").is_file()


def test_what_cannot_be_trained_on_is_said(data, tmp_path):
    for path, message in (
        (tmp_path / "absent.parquet", "no exported trajectories"),
        (tmp_path, "no exported trajectories"),
        (data / "store", "trajectory store; export it first"),
    ):
        with pytest.raises(SftError, match=message):
            load_conversations((str(path),), tmp_path / "cache")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SftError, match=r"torn\.parquet"):
        load_conversations((str(tmp_path / "torn.parquet"),), tmp_path / "cache")
    other = tmp_path / "other.parquet"
    write_first_turns(other, "phantoms:abdomen", range(1), ChatOptions(image_size=96))
    both = (str(data / "episodes.parquet"), str(other))
    with pytest.raises(SftError, match="other options"):
        load_conversations(both, tmp_path / "cache")
    with pytest.raises(SftError, match="trajectories"):
        SftConfig()
    with pytest.raises(SftError, match="optimiser"):
        settings(data, optimiser="sgd")


def test_first_turns_are_never_of_the_test_split(tmp_path):
    with pytest.raises(PolicyError, match="train or the val"):
        write_first_turns(tmp_path / "x.parquet", "phantoms", range(1), CHAT, split="test")
    with pytest.raises(PolicyError, match="do not share an image"):
        write_first_turns(tmp_path / "x.parquet", "phantoms", range(1), CHAT, per_image=5)


def test_first_turns_begin_as_the_environment_does(data):
    import datasets

    from medseg_gym.policy import make_envs

    rows = datasets.Dataset.from_parquet(
        str(data / "first_turns.parquet"), cache_dir=str(data / "c")
    )
    envs = make_envs(
        4,
        "MedSegChat-v0",
        cases="phantoms:abdomen",
        split="train",
        backbone="ellipse",
        image_size=64,
        texts="terse",
        max_steps=4,
    )
    keys = envs.source.keys[40:44]
    observations, _ = envs.reset(options={"case": list(keys)})
    messages, (image,) = rows[0]["messages"], rows[0]["images"]
    asked = [m["content"][-1]["text"] for m in messages if m["role"] == "user"]
    assert tuple(asked) == observations["text"]
    assert np.array_equal(observations["image"][0], np.asarray(image))
    answers = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    _, _, _, _, infos = envs.step(answers)
    assert infos["valid"].all() and set(infos["tool"]) == {"box"}
    envs.close()


def test_the_two_optimisers_share_all_parameters_and_their_state():
    model = torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleDict({"0": torch.nn.Linear(4, 4)}), "out": torch.nn.Linear(4, 2)}
    )
    model = torch.nn.ModuleDict({"model": model})
    optimiser = MuonWithAdamW(model)
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    muon = optimiser.parts[1].param_groups[0]["params"]
    assert [tuple(p.shape) for p in muon] == [(4, 4)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate_over_run("cosine", 10, 2, 0.1))
    for _ in range(10):
        sum(p.square().sum() for p in model.parameters()).backward()
        optimiser.step()
        schedule.step()
    rates = [group["lr"] for part in optimiser.parts for group in part.param_groups]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-3])
    again = MuonWithAdamW(model)
    again.load_state_dict(optimiser.state_dict())
    assert [group["lr"] for group in again.param_groups] == rates
    states = again.parts[1].state[muon[0]], optimiser.parts[1].state[muon[0]]
    assert torch.equal(states[0]["momentum_buffer"], states[1]["momentum_buffer"])


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt"]
)
def test_a_damaged_checkpoint_names_file_and_the_one_before(tmp_path, name):
    from medseg_agents.sft.checkpoints import check_checkpoint
    from safetensors.torch import save_file

    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text('{"global_step": 5}')
        save_file({"w": torch.zeros(64)}, folder / "model.safetensors")
        for file in ("optimizer.pt", "scheduler.pt"):
            torch.save({"w": torch.ones(64)}, folder / file)
    check_checkpoint(folder)
    whole = (folder / name).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for bad in (b"", whole[: len(whole) // 2], bytes(flipped) if name.endswith(".pt") else b"x"):
        (folder / name).write_bytes(bad)
        with pytest.raises(SftError, match=rf"{name} is damaged: .*to go on from checkpoint-5"):
            check_checkpoint(folder)
    (folder / name).unlink()
    if name == "trainer_state.json":
        with pytest.raises(SftError, match="is missing"):
            check_checkpoint(folder)


def test_conversations_that_spell_special_tokens_are_left_out(caller):
    import datasets

    words = ["go", "<|image_pad|> go", "a <|im_end|>", "<tool_call>"]
    messages = [[text_message("user", "hm"), text_message("assistant", word)] for word in words]
    rows = datasets.Dataset.from_list([{"messages": one, "images": []} for one in messages])
    processor = load_processor(caller)
    with pytest.warns(UserWarning, match="2 rows spell special tokens"):
        kept = leave_out_spelled(rows, processor, ("messages",), SftError)
    with (
        pytest.warns(UserWarning, match="1 rows spell"),
        pytest.raises(SftError, match="every row spells"),
    ):
        leave_out_spelled(rows.select([1]), processor, ("messages",), SftError)
    assert [one[1]["content"][0]["text"] for one in kept["messages"]] == ["go", "<tool_call>"]
