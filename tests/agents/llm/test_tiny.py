import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from medseg_agents.llm.checkpoint import SavedView, load_processor
from medseg_agents.llm.tiny_model import TinyConfig, build_model, build_processor
from medseg_agents.sft.tiny_start import build_start
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from medseg_gym.errors import PolicyError
from medseg_gym.prompts import (
    AddBox,
    AddPoint,
    Clear,
    Coordinates,
    Stop,
    Undo,
    encode_tool_call,
)

TEXTS = ["liver in abdomen CT, 5 calls.", "3 left."]


def test_the_files_are_those_of_qwen3_vl(tiny_path):
    config = json.loads((tiny_path / "config.json").read_text())
    processor = json.loads((tiny_path / "processor_config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    assert config["model_type"] == "qwen3_vl"
    assert config["text_config"]["rope_parameters"]["mrope_interleaved"] is True
    assert processor["processor_class"] == "Qwen3VLProcessor"
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (tiny_path / name).is_file()


def test_it_reloads_exactly_through_the_automatic_classes(tiny_path):
    processor = AutoProcessor.from_pretrained(tiny_path)
    assert type(processor).__name__ == "Qwen3VLProcessor"
    one = AutoModelForImageTextToText.from_pretrained(tiny_path)
    config = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=2)
    other = build_model(build_processor([*TEXTS, "no change, 2 left."], config), config)
    for (name, ours), theirs in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_a_conversation_is_rendered_as_qwen3_vl_renders_it(tiny_path):
    processor = AutoProcessor.from_pretrained(tiny_path)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "S"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
    ]
    assert processor.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Q<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (AddBox(0.1, 0.2, 0.3, 0.4), 19),
        (AddPoint(0.1, 0.2, True), 11),
        (Undo(), 3),
        (Clear(), 3),
        (Stop(), 3),
    ],
)
def test_a_call_is_few_tokens_and_the_same_text(tiny_path, prompt, tokens):
    tokenizer = AutoProcessor.from_pretrained(tiny_path).tokenizer
    text = encode_tool_call(prompt)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) == tokens


@pytest.mark.parametrize(
    "text", ["niere, größer als 5 mm?", "肝臓 🫀", "\n\n a  b\t", "<|im_end|>x"]
)
def test_any_text_can_be_written(tiny_path, text):
    tokenizer = AutoProcessor.from_pretrained(tiny_path).tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_numbers_are_one_token_each_and_neighbours_begin_alike():
    config = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=2, numbers=64)
    processor = build_processor(TEXTS, config)
    tokenizer = processor.tokenizer
    places = Coordinates("pixel", 64)
    text = encode_tool_call(AddBox(0.1, 0.2, 0.3, 0.9), places)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 11 and tokenizer.decode(ids) == text
    for other in ("T1 MRI, 12 of 345", "0.25 and 64"):  # numbers in words, and too large ones
        assert tokenizer.decode(tokenizer(other)["input_ids"]) == other
    words = build_model(processor, config).model.language_model.embed_tokens.weight
    numbers = words[tokenizer.convert_tokens_to_ids([str(n) for n in range(64)])]
    along = torch.nn.functional.normalize(numbers, dim=1)
    one, two, far = (torch.diagonal(along @ along.T, apart) for apart in (1, 2, 12))
    assert one.min() > 0.6 and one.min() > two.max() and two.min() > far.max()
    assert numbers.std() < 2 * words.std()
    assert len(build_processor(TEXTS, TinyConfig()).tokenizer("64")["input_ids"]) == 2


@pytest.mark.parametrize(("coordinates", "numbers"), [("pixel", 64), ("grid1000", 0)])
def test_a_start_for_pixels_has_a_token_for_each(coordinates, numbers, tmp_path):
    view = {"image_size": 64, "texts": "terse", "coordinates": coordinates}
    message = {"role": "user", "content": [{"type": "text", "text": TEXTS[0]}]}
    rows = datasets.Dataset.from_list([{"messages": [message]}])
    path = build_start(tmp_path / "start", rows, SavedView(view, {}, None))
    tokenizer = load_processor(path).tokenizer
    assert len(tokenizer("63")["input_ids"]) == (1 if numbers else 2)
    file = "model.safetensors"
    same, other = (
        build_start(tmp_path / name, rows, SavedView(view, {}, None), seed) / file
        for name, seed in (("same", 0), ("other", 1))
    )
    assert same.read_bytes() == (path / file).read_bytes() != other.read_bytes()


@pytest.mark.parametrize("size", [{"image_size": 100}, {"image_size": 16}, {"hidden": 36}])
def test_sizes_that_cannot_be_are_refused(size):
    with pytest.raises(PolicyError, match=next(iter(size))):
        TinyConfig(**size)


def test_the_layout_that_qwen3_vl_is_published_in_loads_alike(tiny_path, tmp_path):
    """Older files beside the same weights: as the checkpoints on the hub lie."""
    shutil.copytree(tiny_path, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    (tmp_path / "processor_config.json").unlink()
    processing = {
        **settings["image_processor"],
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    processing["processor_class"] = "Qwen3VLProcessor"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processing))
    videos = {**settings["video_processor"], "processor_class": "Qwen3VLProcessor"}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(videos))
    template = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(tokens["model"]["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokens["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    names = json.loads((tmp_path / "tokenizer_config.json").read_text())
    names["tokenizer_class"] = "Qwen2Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))

    ours, published = load_processor(tiny_path), load_processor(tmp_path)
    assert type(published).__name__ == "Qwen3VLProcessor"
    assert type(published.tokenizer).__name__.startswith("Qwen2Tokenizer")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x, y."}]}]
    batches = []
    for processor in (ours, published):
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        batches.append(processor(text=[text], images=[[image]], return_tensors="pt"))
    assert batches[0].keys() == batches[1].keys()
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    call = encode_tool_call(AddBox(0.1, 0.2, 0.3, 0.4))
    assert published.tokenizer(call)["input_ids"] == ours.tokenizer(call)["input_ids"]
