"""A tiny model that has learned to make calls, in seconds."""

import os

import pytest

pytest.importorskip("trl")
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch

from agents.llm.checkpoint import load_model, load_processor
from agents.llm.tiny import TinyConfig, build_tiny
from medseg_gym.backbones import EllipseBackbone
from medseg_gym.errors import BackboneError
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, Stop, encode_tool_call

STEPS = 80
VIEW = {"image_size": 64, "texts": "terse", "max_steps": 3}


class Counting(EllipseBackbone):
    """Counts decoder calls, and can be told to fail."""

    def __init__(self):
        super().__init__()
        self.calls, self.broken = 0, False

    def decode(self, rows):
        if self.broken:
            raise BackboneError("the segmenter is gone; start it again")
        self.calls += 1
        return super().decode(rows)


@pytest.fixture
def backbone():
    return Counting()


def said(turn, variant):
    """What the model learns to say: a box, then a click or nothing readable, then stop."""
    box = AddBox(0.2505, 0.2505, 0.7505, 0.7505 if variant % 2 else 0.5005)
    click = AddPoint(0.5005, 0.4005, bool(variant % 3))
    words = [encode_tool_call(box), encode_tool_call(click), encode_tool_call(Stop())]
    if turn == 1 and variant % 4 == 3:
        return "Let me see."
    return words[turn]


@pytest.fixture(scope="session")
def caller(tmp_path_factory, small_cases):
    """Folder of the model."""
    options = {"cases": small_cases, "backbone": "ellipse", **VIEW}
    envs = make_envs(len(small_cases), "MedSegChat-v0", **options)
    conversations, texts = [], set()
    for variant in range(6):
        observations, _ = envs.reset(options={"case": [case.key for case in small_cases]})
        for turn in range(3):
            texts |= set(observations["text"])
            observations, *_ = envs.step([said(turn, variant)] * len(small_cases))
        conversations += [(envs.messages(s), envs.pictures(s)) for s in range(len(small_cases))]
    size = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=1)
    path = build_tiny(tmp_path_factory.mktemp("caller"), sorted(texts), size)
    model, processor = load_model(path), load_processor(path)
    batches = []
    for start in range(0, len(conversations), 6):
        some = conversations[start : start + 6]
        batch = processor(
            text=processor.apply_chat_template([m for m, _ in some], tokenize=False),
            images=[list(pictures) for _, pictures in some],
            padding=True,
            return_tensors="pt",
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[labels == model.config.image_token_id] = -100
        batches.append({**batch, "labels": labels})
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        for step in range(STEPS):
            loss = model(**batches[step % len(batches)]).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    assert loss.item() < 0.5, loss.item()
    model.eval().save_pretrained(path)
    return path
