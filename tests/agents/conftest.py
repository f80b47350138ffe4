"""A training run that takes seconds, and a tiny language model that makes calls."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def small_run() -> dict:
    """Settings of a run on synthetic cases with the image-blind segmenter."""
    return {
        "cases": "phantoms:fundus",
        "pool": 8,
        "backbone": "ellipse",
        "image_size": 32,
        "bins": 16,
        "max_steps": 3,
        "num_envs": 4,
        "rollout": 16,
        "minibatch": 32,
        "epochs": 2,
        "width": 4,
        "steps": 128,
        "eval_every": 64,
        "eval_cases": 4,
        "checkpoint_every": 64,
        "test_cases": 0,
    }


def answers(turn, variant):
    """Completions to learn: a box, then a click or nothing readable, then stop."""
    from medseg_gym.prompts import AddBox, AddPoint, Stop, encode_tool_call

    box = AddBox(0.2505, 0.2505, 0.7505, 0.7505 if variant % 2 else 0.5005)
    click = AddPoint(0.5005, 0.4005, bool(variant % 3))
    words = [encode_tool_call(box), encode_tool_call(click), encode_tool_call(Stop())]
    if turn == 1 and variant % 4 == 3:
        return "Let me see."
    return words[turn]


@pytest.fixture(scope="session")
def caller(tmp_path_factory, small_cases):
    """Folder of a vision-language model that has learned in seconds to make valid calls."""
    pytest.importorskip("trl")
    from medseg_agents.llm.checkpoint import save_view
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    from medseg_gym.policy import make_envs

    view = {"image_size": 64, "texts": "terse"}
    options = {"cases": small_cases, "backbone": "ellipse", "max_steps": 3, **view}
    envs = make_envs(len(small_cases), "MedSegChat-v0", **options)
    conversations, texts = played(envs, [case.key for case in small_cases], answers)
    size = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=1)
    path = build_tiny(tmp_path_factory.mktemp("caller"), texts, size)
    teach(path, conversations)
    save_view(path, view, {})
    return path


def played(envs, keys, answers):
    """Conversations of six ways to play each case, and the texts that they show."""
    conversations, texts = [], set()
    for variant in range(6):
        observations, _ = envs.reset(options={"case": keys})
        for turn in range(3):
            texts |= set(observations["text"])
            observations, *_ = envs.step([answers(turn, variant)] * len(keys))
        conversations += [(envs.messages(s), envs.images(s)) for s in range(len(keys))]
    return conversations, sorted(texts)


def teach(path, conversations):
    """Train the model in a folder for some seconds on conversations, and save it there."""
    import torch
    from medseg_agents.llm.checkpoint import load_model, load_processor

    model, processor = load_model(path), load_processor(path)
    batches = []
    for start in range(0, len(conversations), 6):
        some = conversations[start : start + 6]
        batch = processor(
            text=processor.apply_chat_template([m for m, _ in some], tokenize=False),
            images=[list(shown) for _, shown in some],
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
        for step in range(80):
            loss = model(**batches[step % len(batches)]).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    assert loss.item() < 0.5, loss.item()
    model.eval().save_pretrained(path)
