"""Peak memory of one gradient step of `ChatLearner`, in a process of its own; see `memory`.

    python -m benchmarks.learning.memory_step '{"model": FOLDER, "settings": {...}, ...}'

prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement."""

    model: str
    """Folder of the checkpoint."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of `ChatSettings`."""

    image_size: int = 128
    """Side of the images, in pixels."""

    prompt: int = 400
    """Tokens that the rows of a group begin with, those of one image among them."""

    turns: int = 2
    """Completions of a row; before each but the first an image is shown."""

    completion: int = 64
    """Tokens of one completion."""


def make_rows(step: Step, processor: Any) -> list[Any]:
    """Make rows of tokens that the model never drew: memory does not depend on what they say."""
    from medseg_agents.grpo.rollout.token_rows import HashedImage, TurnTokens, rows_of

    generator = np.random.default_rng(0)
    merge = processor.image_processor.patch_size * processor.image_processor.merge_size
    image_tokens = np.full((step.image_size // merge) ** 2, processor.image_token_id, np.int64)
    # Not the special tokens at the beginning of the vocabulary.
    words = [
        i for i in range(len(processor.tokenizer)) if i not in processor.tokenizer.all_special_ids
    ]

    def text(length: int) -> np.ndarray:
        return generator.choice(words, length)

    def image() -> Any:
        shape = (step.image_size, step.image_size, 3)
        return HashedImage.of(generator.integers(0, 256, shape, np.uint8))

    rows: list[Any] = []
    for group in range(step.settings["groups"]):
        begin = np.concatenate([image_tokens, text(step.prompt - len(image_tokens))])
        first = image()
        for member in range(step.settings["num_generations"]):
            prompt, turns = begin, list[TurnTokens]()
            images: tuple[HashedImage, ...] = (first,)
            for number in range(step.turns):
                if number:
                    images = (*images, image())
                    prompt = np.concatenate([prompt, turns[-1].tokens, image_tokens, text(8)])
                tokens = text(step.completion)
                turns.append(
                    TurnTokens(prompt, tokens, np.full(len(tokens), -8, np.float32), images)
                )
            (row,) = rows_of(turns, group * step.settings["num_generations"] + member)
            row.set_advantages(generator.normal(size=step.turns))
            rows.append(row)
    return rows


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Bytes that this process held at most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: this needs Linux")


def forget_peak() -> None:
    """Let `peak` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class ReadyStep:
    """A learner that has its optimiser's moments, and what it learns from next."""

    learner: Any
    batch: Any
    tokens: int

    @property
    def module(self) -> Any:
        """The module that is trained."""
        return self.learner.chat_module

    def take(self) -> None:
        """Take the gradient step."""
        self.learner._update(self.batch)


def prepare(step: Step) -> ReadyStep:
    """Build the learner and the rows of a step."""
    import torch
    from gymnasium.spaces import Discrete
    from medseg_agents.grpo import GRPOConfig
    from medseg_agents.grpo.connectors import ROWS
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    config = GRPOConfig().chat(model=step.model, max_logp_difference=1e9, **step.settings)
    space: Any = Discrete(1)  # RLlib asks for spaces; a learner of tokens reads none
    learner: Any = config.build_learner(spaces={DEFAULT_MODULE_ID: (space, space)})
    learner.build()
    module = learner.chat_module
    rows = make_rows(step, module.processor)
    column = np.empty(len(rows), object)
    column[:] = rows
    batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch({ROWS: column})}, len(rows))
    learner.before_gradient_based_update(timesteps={})
    for optimiser in learner._named_optimizers.values():
        for parameter in module.trained().values():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
    return ReadyStep(learner, batch, sum(len(row.tokens) for row in rows))


def planned(step: Step) -> float:
    """Return the bytes that a plan reckons for the step, weights and moments left out."""
    from medseg_agents.grpo.plan.conversation import Conversation
    from medseg_agents.grpo.plan.memory import (
        GRADIENTS_OF_WEIGHTS,
        learner_parts,
        total,
        weight_parts,
    )
    from medseg_agents.grpo.plan.shape import read_shape
    from medseg_agents.grpo.settings import GRPORun

    run = GRPORun(model=step.model, device="cpu", **step.settings)
    shape = read_shape(step.model, run.lora_rank, dtype=run.dtype, precision=run.precision)
    image = shape.image_tokens(step.image_size)
    talk = Conversation(step.prompt, 8 + image, step.completion, step.turns, image)
    weights = [p for p in weight_parts(shape, run, True) if p.name == GRADIENTS_OF_WEIGHTS]
    return total(weights + learner_parts(shape, run, talk))


def measure(step: Step) -> dict[str, float]:
    """Take a step, with an optimiser that has its moments already.

    Returns:
        In bytes `held`, of the process before the step, without gradients, and `peak`, in it, and
        `planned`, what a plan reckons for their difference; `seconds` of it; `parameters`, and
        `trained` ones; `tokens` of a step.
    """
    import torch

    torch.set_num_threads(1)
    reckoned = planned(step)
    ready = prepare(step)
    for tensor in ready.module.lm.parameters():
        tensor.sum()  # weights are mapped from their file: in memory only once they were read
    held = resident()
    forget_peak()
    began = time.perf_counter()
    ready.take()
    return {
        "held": held,
        "peak": peak(),
        "planned": reckoned,
        "seconds": time.perf_counter() - began,
        "parameters": sum(p.numel() for p in ready.module.lm.parameters()),
        "trained": sum(p.numel() for p in ready.module.trained().values()),
        "tokens": ready.tokens,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asked = Step(**json.loads(sys.argv[1]))
    print(json.dumps({**asdict(asked), **measure(asked)}))
