"""One chain: supervised adapters or weights, GRPO of either, evaluation, play, export."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
import typer
from medseg_agents import policies
from medseg_agents.commands.entry import add_commands
from medseg_agents.grpo import train
from medseg_agents.grpo.settings import GRPORun
from medseg_agents.llm.checkpoint import load_model, load_processor, read_view
from medseg_agents.llm.weights.export import export_model
from medseg_agents.llm.weights.origin import read_facts
from medseg_agents.runs.log import read_progress
from medseg_agents.sft.config import SftConfig
from medseg_agents.sft.train import train_sft
from peft import PeftModel
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs
from medseg_gym.trajectories.export.export import export_store
from medseg_gym.trajectories.recording.generate import GenerateOptions, generate_episodes

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

RUN = {
    "cases": "phantoms:fundus",
    "backbone": "ellipse",
    "max_steps": 2,
    "max_completion_length": 36,
    "temperature": 1.2,
    "iterations": 1,
    "eval_every": 0,
    "groups": 6,
    "num_generations": 4,
    "beta": 0.1,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def supervised(caller, tmp_path_factory):
    """Folder of a model that was fine-tuned with adapters of a rank; 0 is all weights."""
    folder = tmp_path_factory.mktemp("supervised")
    cases = {"cases": "phantoms:fundus", "backbone": "ellipse", "max_steps": 2}
    chosen = GenerateOptions(annotator="hybrid", limit=2, num_envs=2, **cases)
    store = generate_episodes(folder / "store", chosen)
    view = ChatOptions(image_size=64, texts="terse", max_steps=2)
    export_store(store, folder / "episodes.parquet", chat=view)
    made = {}

    def train(rank):
        if rank not in made:
            options = {"steps": 1, "batch_size": 2, "warmup": 1, "device": "cpu", "lr": 5e-4}
            config = SftConfig(
                trajectories=(str(folder / "episodes.parquet"),),
                model=str(caller),
                lora_rank=rank,
                **options,
            )
            made[rank] = train_sft(config, folder / f"rank-{rank}", quiet=True)
        return made[rank]

    return train


def logits(model, processor):
    """Of one conversation with an image, T x V."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "liver"}]}
    text = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    image = Image.fromarray(pixels)
    batch = processor(text=[text], images=[[image]], return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits[0]


def run_grpo(model, out, **options):
    config = GRPORun(model=str(model), **{**RUN, **options})
    return train.train_chat(config, out, console=Console(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "rank", "kind"),
    [
        (0, 0, "weights"),
        (0, 4, "adapters"),
        (4, 0, "weights"),
        (4, 4, "adapters"),
        (4, None, "adapters"),
        (4, 2, "adapters"),
    ],
)
def test_a_supervised_model_is_trained_plays_and_is_exported(
    supervised, caller, ray_cluster, tmp_path, before, rank, kind
):
    start = supervised(before)
    run = run_grpo(start, tmp_path / "run", lora_rank=rank, lr=1e-3)
    (row,) = [row for row in read_progress(run.path) if "return" in row]
    assert row["kl"] == pytest.approx(0, abs=1e-6)  # the reference is what training began with
    assert row["sampling/max_ratio_deviation"] < 1e-3 and row["grad_norm"] > 0

    facts = read_facts(run.model)
    assert facts["kind"] == kind and facts["algorithm"] == "GRPORun"
    assert facts["dtype"] == "float32" and facts["versions"]["torch"]
    assert (facts.get("rank") or 0) == (4 if rank is None else rank)
    assert facts["run"] == str(run.path)
    whole = run.path / "base" if rank == 2 else caller if before else start
    assert facts["base"] == str(whole)
    assert facts["merged_adapters"] == (str(start) if before and rank == 0 else None)

    # It plays: as an evaluation names it, and as the page loads it.
    app = typer.Typer()
    add_commands(app)
    words = ["eval", "--policy", f"llm:{run.model}", "--cases", "phantoms:fundus", "--limit", "2"]
    words += ["--backbone", "ellipse", "--max-steps", "1", "--out", str(tmp_path / "eval")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    spec = policies.make(f"llm:{run.model}")
    assert spec.view == read_view(start)[0]
    envs = make_envs(1, "MedSegChat-v0", cases="phantoms:fundus", backbone="ellipse", **spec.view)
    spec.build(envs)
    envs.close()

    # It is loaded without this project, with the same logits.
    trained = load_model(run.model)
    wanted = logits(trained, load_processor(run.model))
    began = logits(load_model(start), load_processor(start))
    assert not torch.allclose(wanted, began, atol=1e-4)  # it did learn
    out = tmp_path / "merged"
    done = CliRunner().invoke(app, ["export-model", str(run.path), "--merged", "--out", str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert not (out / "adapter_config.json").exists()
    plain = AutoModelForImageTextToText.from_pretrained(out)
    assert next(plain.parameters()).dtype == torch.float32
    assert torch.allclose(logits(plain, load_processor(out)), wanted, atol=1e-5)
    assert read_facts(out)["base"] == facts["base"]
    assert read_view(out)[0] == read_view(run.model)[0]
    if kind == "weights":
        with pytest.raises(PolicyError, match="--merged"):
            export_model(run.path, tmp_path / "adapters", merged=False)
        return
    adapters = export_model(run.path, tmp_path / "adapters", merged=False)
    assert not (adapters / "model.safetensors").exists()
    base = AutoModelForImageTextToText.from_pretrained(read_facts(adapters)["base"])
    loaded = PeftModel.from_pretrained(base, adapters)
    assert torch.allclose(logits(loaded, load_processor(adapters)), wanted, atol=1e-5)


def test_a_bfloat16_checkpoint_moves_at_a_small_rate(caller, ray_cluster, tmp_path):
    start = tmp_path / "bf16"
    load_model(caller).bfloat16().save_pretrained(start)
    load_processor(caller).save_pretrained(start)
    shutil.copy(caller / "medseg_view.json", start)
    run = run_grpo(start, tmp_path / "run", lr=1e-6, warmup=1, device="cpu", groups=6)
    before, after = (load_file(one / "model.safetensors") for one in (start, run.model))
    layers = [name for name in before if "language_model.layers" in name]
    moved = sum(int((before[name].float() != after[name]).sum()) for name in layers)
    assert moved > 0.9 * sum(before[name].numel() for name in layers)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    facts = read_facts(run.model)
    assert (facts["dtype"], facts["base_dtype"]) == ("float32", "bfloat16")
    devices = json.loads((run.path / "devices.json").read_text())
    assert devices["line"] == "learner on cpu; sampler on cpu; segmenter on cpu"


def test_adapters_whose_base_was_moved_say_the_way_out(supervised, caller, tmp_path):
    base, adapters = tmp_path / "there" / "base", tmp_path / "there" / "adapters"
    shutil.copytree(caller, base)
    shutil.copytree(supervised(4), adapters)
    config = json.loads((adapters / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (adapters / "adapter_config.json").write_text(json.dumps(config))
    wanted = logits(load_model(adapters), load_processor(adapters))
    exported = export_model(adapters, tmp_path / "there" / "exported", merged=False)
    os.rename(tmp_path / "there", tmp_path / "elsewhere")
    adapters, base = (tmp_path / "elsewhere" / name for name in ("adapters", "base"))
    # What was moved together still belongs together.
    together = tmp_path / "elsewhere" / exported.name
    assert torch.equal(logits(load_model(together), load_processor(together)), wanted)
    (adapters / "medseg_model.json").unlink()
    with pytest.raises(PolicyError, match=r"there/base is no folder.*\?base=BASE.*--base BASE"):
        load_model(adapters)
    with pytest.raises(PolicyError, match="--base BASE"):
        train.train_chat(GRPORun(model=str(adapters), **RUN), tmp_path / "run")
    assert torch.equal(logits(load_model(adapters, base=base), load_processor(base)), wanted)
    spec = policies.make(f"llm:{adapters}?base={base}")
    envs = make_envs(1, "MedSegChat-v0", cases="phantoms:fundus", backbone="ellipse", **spec.view)
    policy = spec.build(envs)
    trained = logits(policy.engine.model.cpu(), load_processor(base))
    assert torch.allclose(trained, wanted, atol=1e-5)
    envs.close()


def test_a_relative_base_counts_from_the_working_directory_and_from_the_adapters(
    supervised, caller, tmp_path, monkeypatch
):
    adapters = tmp_path / "adapters"
    shutil.copytree(supervised(4), adapters)
    shutil.copytree(caller, tmp_path / "base")
    (adapters / "medseg_model.json").unlink()
    config = json.loads((adapters / "adapter_config.json").read_text())
    for where, named in ((tmp_path, "base"), (caller, "../base")):
        monkeypatch.chdir(where)
        config["base_model_name_or_path"] = named
        (adapters / "adapter_config.json").write_text(json.dumps(config))
        load_model(adapters)
