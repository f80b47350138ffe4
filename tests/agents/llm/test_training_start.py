"""Start of training: the weights, their type, and the reference."""

import json

import pytest
import torch
from medseg_agents.llm.checkpoint import load_model, load_processor
from medseg_agents.llm.turn_cache import positions, without_adapters
from medseg_agents.llm.weights.origin import Origin, read_facts
from medseg_agents.llm.weights.reference import as_reference, keep_reference
from medseg_agents.llm.weights.save import save_model
from medseg_agents.llm.weights.start import (
    add_adapters,
    load_for_training,
    plan_start,
    start_folder,
)
from safetensors.torch import load_file

from medseg_gym.errors import PolicyError


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture(scope="module")
def bf16_path(tiny_path, tmp_path_factory):
    """The tiny model as large ones are published: in bfloat16."""
    path = tmp_path_factory.mktemp("bf16")
    load_model(tiny_path).bfloat16().save_pretrained(path)
    load_processor(tiny_path).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapters_path(tiny_path, tmp_path_factory):
    """Adapters of rank 4 that change what the tiny model says."""
    path = tmp_path_factory.mktemp("adapters")
    model, origin = load_for_training(tiny_path, 4)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, parameter in trained(model).items():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    save_model(model, load_processor(tiny_path), path, origin)
    return path


IDS = torch.arange(40, 60)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("held", "wanted", "plan"),
    [
        (None, None, "all weights"),
        (None, 0, "all weights"),
        (None, 4, "new adapters"),
        (4, None, "these adapters"),
        (4, 4, "these adapters"),
        (4, 0, "merged"),
        (4, 2, "merged, new adapters"),
    ],
)
def test_checkpoint_and_rank_decide_what_is_trained(held, wanted, plan):
    assert plan_start(held, wanted) == plan


@pytest.mark.parametrize("rank", [None, 0, 4])
def test_training_begins_with_what_the_adapters_say(adapters_path, tiny_path, rank):
    model, origin = load_for_training(adapters_path, rank)
    wanted = logits(load_model(adapters_path))
    assert torch.allclose(logits(model), wanted, atol=1e-5)
    assert not torch.allclose(wanted, logits(load_model(tiny_path)), atol=1e-2)
    assert origin.base == str(tiny_path)
    names = trained(model)
    assert names and all(("lora" in name) == (rank != 0) for name in names)
    assert origin.merged == (str(adapters_path) if rank == 0 else None)
    if rank == 0:
        assert len(names) == len(list(model.parameters()))


def test_adapters_of_another_rank_lie_on_the_merged_model(adapters_path, tmp_path):
    with pytest.raises(PolicyError, match=r"rank 4; new ones of rank 2.*export-model"):
        load_for_training(adapters_path, 2)
    with pytest.raises(PolicyError, match="lora_alpha 8"):
        load_for_training(adapters_path, 4, lora_alpha=16)
    assert start_folder(adapters_path, 4, tmp_path / "no") == adapters_path
    start = start_folder(adapters_path, 2, tmp_path / "base")
    assert start == start_folder(adapters_path, 2, tmp_path / "base") == tmp_path / "base"
    model, origin = load_for_training(start, 2)
    assert torch.allclose(logits(model), logits(load_model(adapters_path)), atol=1e-5)
    assert origin.base == str(start)
    assert read_facts(start)["merged_adapters"] == str(adapters_path)


def test_the_reference_is_the_policy_that_training_began_with(adapters_path, tiny_path):
    for path, rank in ((adapters_path, None), (tiny_path, 4)):
        model, _ = load_for_training(path, rank)
        if rank is None:
            keep_reference(model, path)
        wanted = logits(model)
        frozen = next(p for p in trained(model).values())
        frozen.requires_grad_(False)  # as a vision tower that does not learn
        before = set(trained(model))
        assert before and not any("reference" in name for name in before)
        with torch.no_grad():
            for parameter in trained(model).values():
                parameter += 0.1
        with as_reference(model) as reference:
            assert torch.equal(logits(reference), wanted)
        assert not torch.allclose(logits(model), wanted, atol=1e-2)
        assert set(trained(model)) == before
    assert not torch.allclose(wanted, logits(load_model(adapters_path)), atol=1e-2)


def test_positions_are_found_below_adapters_on_adapters(tiny_path):
    model = load_model(tiny_path)
    text = {"input_ids": IDS, "mm_token_type_ids": IDS * 0, "attention_mask": IDS * 0 + 1}
    wanted = positions(model, {**text, "image_grid_thw": None})
    nested = add_adapters(model, 2)
    with pytest.warns(UserWarning):  # peft's, about a second time
        nested = add_adapters(nested, 2)
    assert without_adapters(nested) is without_adapters(model)
    assert torch.equal(positions(nested, {**text, "image_grid_thw": None}), wanted)


@pytest.mark.parametrize(("rank", "kept"), [(None, torch.float32), (4, torch.bfloat16)])
def test_what_is_trained_is_float32_and_what_is_frozen_stays(bf16_path, rank, kept):
    model, origin = load_for_training(bf16_path, rank)
    assert origin.dtype == "bfloat16"
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    assert {p.dtype for n, p in model.named_parameters() if "lora" not in n} == {kept}
    assert {p.dtype for p in load_for_training(bf16_path, rank, dtype="float32")[0].parameters()} \
        == {torch.float32}  # fmt: skip


def test_small_steps_move_a_bfloat16_checkpoint_as_they_move_float32(bf16_path):
    def steps(model):
        begun = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0)
        for _ in range(3):
            model(input_ids=IDS, labels=IDS).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        named = dict(model.named_parameters())
        taught = [n for n in named if ".visual." not in n and "embed" not in n]
        moved = sum(int((named[n] != begun[n]).sum()) for n in taught)
        return named, moved / sum(named[n].numel() for n in taught)

    ours, moved = steps(load_for_training(bf16_path, None)[0])
    wanted, _ = steps(load_model(bf16_path, "float32"))
    _, in_bf16 = steps(load_model(bf16_path))
    assert moved > 0.9 and in_bf16 < 0.1, (moved, in_bf16)
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("dtype", "written"), [("float32", "float32"), ("base", "bfloat16")])
def test_what_is_written_says_its_type(bf16_path, tmp_path, dtype, written):
    model, origin = load_for_training(bf16_path, 0)
    save_model(model, load_processor(bf16_path), tmp_path, origin, {"run": "r"}, dtype)
    kind = getattr(torch, written)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == read_facts(tmp_path)["dtype"] == written
    saved, stored = (load_file(path / "model.safetensors") for path in (tmp_path, bf16_path))
    assert {tensor.dtype for tensor in saved.values()} == {kind}
    assert saved.keys() == stored.keys()  # tied weights once
    assert all(torch.equal(saved[name].bfloat16(), stored[name]) for name in stored)
    assert load_model(tmp_path).dtype == kind
    assert "base_model" in (tmp_path / "README.md").read_text()


def test_a_type_that_is_none_is_named(tiny_path, tmp_path):
    model, _ = load_for_training(tiny_path, 0)
    origin = Origin(str(tiny_path), str(tiny_path), None, "float32")
    with pytest.raises(PolicyError, match="'int8'"):
        save_model(model, load_processor(tiny_path), tmp_path, origin, dtype="int8")
