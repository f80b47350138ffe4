"""The parts of the vLLM engine that need no vLLM: messages, prompts, weights, options, refusals."""

import json
import socket
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("trl")

import torch
from medseg_agents import policies
from medseg_agents.grpo.settings import ChatSettings
from medseg_agents.llm.checkpoint import load_model, load_processor, save_view
from medseg_agents.llm.engine import Conversation, EngineError
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_agents.llm.prompt_tokens import PromptTokens
from medseg_agents.llm.vllm import process as vllm_process
from medseg_agents.llm.vllm import weights, wire
from medseg_agents.llm.vllm.model_facts import model_facts
from medseg_agents.llm.vllm.prompts import SentImages, one_place_holder, prompts_of
from PIL import Image
from safetensors.torch import load_file

from medseg_gym.errors import MedSegError, PolicyError

ARRAYS = [
    np.arange(7, dtype=np.int32),
    np.zeros((0,), np.float32),
    np.arange(4_000_000, dtype=np.uint8).reshape(1000, 4000),
]


@pytest.fixture
def ends():
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def test_messages_arrive_as_they_were_sent(ends):
    sender = threading.Thread(target=wire.send, args=(ends[0], {"do": "x", "é": [1.5]}, ARRAYS))
    sender.start()
    message, arrays = wire.receive(ends[1], time.monotonic() + 10)
    sender.join()
    assert message == {"do": "x", "é": [1.5]}
    for sent, received in zip(ARRAYS, arrays, strict=True):
        assert received.dtype == sent.dtype and np.array_equal(received, sent)


def test_a_message_that_breaks_off_is_none(ends):
    text = json.dumps({"message": {}, "arrays": [["int32", [100]]]}).encode()
    ends[0].sendall(len(text).to_bytes(8, "big") + text + bytes(40))
    ends[0].close()
    with pytest.raises(EOFError):
        wire.receive(ends[1])


def test_one_that_is_late_is_not_waited_for(ends):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.receive(ends[1], began + 0.2)
    assert time.monotonic() - began < 5


def test_arrays_of_objects_are_refused(ends):
    text = json.dumps({"message": {}, "arrays": [["object", [1]]]}).encode()
    ends[0].sendall(len(text).to_bytes(8, "big") + text + bytes(8))
    with pytest.raises(ValueError, match="object"):
        wire.receive(ends[1])


def test_prompts_have_one_place_holder_an_image(tiny_path):
    """And are those of transformers otherwise."""
    processor = load_processor(tiny_path)
    facts = model_facts(tiny_path, processor)
    engine = TransformersEngine(load_model(tiny_path), processor)
    conversation = Conversation(np.random.default_rng(0))
    for turn in range(3):
        image = np.full((64, 64, 3), 40 * turn, np.uint8)
        conversation.show(f"turn {turn}", image)
        [prompt] = prompts_of(PromptTokens(processor), [conversation], [], "all", facts.image_token)
        assert (prompt.tokens == facts.image_token).sum() == len(prompt.images) == turn + 1
        [completion] = engine.generate([conversation])
        whole = one_place_holder(completion.prompt, facts.image_token)
        assert np.array_equal(whole, prompt.tokens)
        assert len(completion.prompt) > len(prompt.tokens)


def test_facts_of_a_checkpoint_are_those_of_its_model(tiny_path):
    from medseg_agents.llm.sampling import end_tokens, forbidden_tokens

    model, processor = load_model(tiny_path), load_processor(tiny_path)
    facts = model_facts(tiny_path, processor)
    assert facts.forbidden == forbidden_tokens(model, processor)
    assert facts.end_tokens == end_tokens(model, processor)
    assert facts.image_token == model.config.image_token_id and facts.dtype == "float32"


def test_an_image_is_sent_once_while_there_is_room():
    from medseg_agents.llm.vllm.prompts import Prompt

    images = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in range(4)]
    sent = SentImages(room=2 * 192)

    def deal(*numbers):
        tokens = np.zeros(0, np.int32)
        return sent.deal([Prompt(tokens, [images[n] for n in numbers])])

    keys, new, forgotten = deal(0, 1, 0)
    assert keys[0][0] == keys[0][2] and set(new) == set(keys[0]) and not forgotten
    again, new, forgotten = deal(1)
    assert again[0] == keys[0][1:2] and not new and not forgotten
    _, new, forgotten = deal(2)
    assert len(new) == 1 and forgotten == [keys[0][0]]
    _, new, forgotten = deal(0, 1, 2, 3)  # all of them are shown: none may go
    assert len(new) == 2 and not forgotten


@pytest.fixture(params=["language", "all"])
def adapted(request, tiny_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(tiny_path), config)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
        if request.param == "language" and ".visual." in name:
            parameter.requires_grad_(False)
            if ".lora_B." in name:
                torch.nn.init.zeros_(parameter)
    return request.param, model


def test_weights_have_the_names_of_the_checkpoint_and_adapters_in_them(adapted, tiny_path):
    kind, model = adapted
    plain = load_model(tiny_path)
    given = weights.checkpoint_weights(model)
    under = weights.base_weights(model)
    assert set(given) == {*plain.state_dict()} and "lm_head.weight" in given
    assert all(torch.equal(under[name], value) for name, value in plain.state_dict().items())
    merged = model.merge_and_unload().state_dict()
    for name, value in merged.items():
        assert torch.allclose(given[name], value, atol=1e-6), name
    before = plain.state_dict()
    changed = {name for name in merged if not torch.equal(given[name], before[name])}
    assert any("q_proj" in name for name in changed)
    assert any(".visual." in name for name in changed) is (kind == "all")


def test_adapters_travel_where_the_vision_tower_has_none_that_learn(adapted, tmp_path, tiny_path):
    from peft import PeftModel

    kind, model = adapted
    assert weights.adapters_travel(model) is (kind == "language")
    assert not weights.adapters_travel(load_model(tiny_path))
    if kind == "language":
        weights.write_adapter(model, tmp_path)
        assert not [
            name for name in load_file(tmp_path / "adapter_model.safetensors") if ".visual." in name
        ]
        read = PeftModel.from_pretrained(load_model(tiny_path), tmp_path).merge_and_unload()
        merged = model.merge_and_unload().state_dict()
        for name, value in read.state_dict().items():
            assert torch.allclose(value, merged[name], atol=1e-6), name


def test_the_output_head_goes_along_though_it_is_tied(tiny_path, tmp_path):
    model = load_model(tiny_path)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".visual." not in name)
    given = weights.checkpoint_weights(model, trained=True)
    assert "lm_head.weight" in given and not [name for name in given if ".visual." in name]
    weights.write_weights(given, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert set(written) == set(given)
    assert torch.equal(
        written["lm_head.weight"], written["model.language_model.embed_tokens.weight"]
    )


def test_an_environment_without_vllm_is_named(tiny_path, monkeypatch):
    with pytest.raises(EngineError, match=r"failed: ModuleNotFoundError.*vllm"):
        vllm_process.VLLMProcess({"model": str(tiny_path)}, sys.executable)
    monkeypatch.delenv(vllm_process.PYTHON, raising=False)
    with pytest.raises(PolicyError, match=r"this Python has no vLLM.*vllm_python=.*MEDSEG_VLLM"):
        vllm_process.find_python()
    with pytest.raises(PolicyError, match=r"vllm_python: .*/no/python.* is no program"):
        vllm_process.find_python("/no/python")
    monkeypatch.setenv(vllm_process.PYTHON, "/no/python")
    with pytest.raises(PolicyError, match="MEDSEG_VLLM_PYTHON: "):
        vllm_process.find_python()


def test_a_worker_that_dies_at_its_start_is_named_with_its_last_words(tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match=r"died .*exit code 3\): no such library"):
        vllm_process.VLLMProcess({"model": "m"}, str(program))


def test_options_of_engines():
    options = ModelOptions(
        engine="vllm", vllm_options="max_model_len=4096;kv_cache_dtype=auto;enforce_eager=true"
    )
    assert options.vllm_arguments() == {
        "max_model_len": 4096,
        "kv_cache_dtype": "auto",
        "enforce_eager": True,
    }
    with pytest.raises(PolicyError, match="is not name=value"):
        ModelOptions(engine="vllm", vllm_options="max_model_len")
    with pytest.raises(PolicyError, match='stop_strings need engine="vllm"'):
        ModelOptions(stop_strings=("</tool_call>",))
    with pytest.raises(MedSegError, match="vllm_timeout must be > 0"):
        ChatSettings(model="m", engine="vllm", vllm_timeout=0)
    with pytest.raises(MedSegError, match="engine must be one of"):
        ChatSettings(model="m", engine="sglang")
    settings = ChatSettings(model="m", engine="vllm", stop_strings=("</tool_call>",))
    assert settings.engine == "vllm" and not settings.vllm_sleep


@pytest.mark.parametrize("option", ["engine", "vllm_python", "vllm_options"])
def test_a_checkpoint_does_not_choose_programs(option, tmp_path):
    save_view(tmp_path, {}, {option: "vllm"})
    with pytest.raises(PolicyError, match=f"sets {option}, which is not for a checkpoint"):
        policies.make(f"llm:{tmp_path}")
