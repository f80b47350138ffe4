"""Tokens per second of the generation engines, over whole conversations with images.

    MEDSEG_VLLM_PYTHON=path/to/vllm/bin/python python -m benchmarks.learning.engines

Every conversation has `--turns` turns with a new image each, and the model completes all
conversations of a turn at once. Both engines are shown the same images and words, draw at
temperature 1 and return log-probabilities, as in training. They take turns, `--repetitions` times,
after one round that is not timed; while one generates, the other waits. `--engines` chooses among
`transformers` (keys and values kept between turns), `transformers-whole` (the whole conversation
read in every turn) and `vllm`.

Wall time holds for an idle machine alone; CPU seconds (of both processes, for vLLM) hold on a busy
one too. Without `--model` the model is a tiny random one, of which an engine's own work is the
larger part; a real model and a GPU must be measured by themselves.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.engine import Conversation
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.tiny_model import TinyConfig, build_tiny
from medseg_agents.runs.machine import describe_machine

from medseg_gym.display.terminal import Table, make_console
from medseg_gym.envs.views.chat_texts import TERSE
from medseg_gym.storage.atomic_write import atomic_write

ENGINES = ("transformers", "transformers-whole", "vllm")


@dataclass(frozen=True)
class Plan:
    """Workload of generation.

    Args:
        conversations: At once.
        turns: Of a conversation.
        new_tokens: Of a completion at most.
        image_size: Side of an image, pixels.
    """

    conversations: int
    turns: int
    new_tokens: int
    image_size: int


@dataclass
class Timed:
    """One engine and what was measured of it; a list has an entry per repetition.

    Args:
        name: One of `ENGINES`.
        policy: Holds the engine.
        seconds: Of every turn.
        cpu_seconds: Of a whole repetition.
        tokens: Generated ones of a whole repetition.
    """

    name: str
    policy: ChatPolicy
    seconds: list[list[float]] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Medians over repetitions."""
        whole = [sum(turns) for turns in self.seconds]
        rates = [count / spent for count, spent in zip(self.tokens, whole, strict=True)]
        per_cpu = [c / spent for c, spent in zip(self.tokens, self.cpu_seconds, strict=True)]
        return {
            "engine": self.name,
            "tokens_per_second": median(rates),
            "tokens_per_second_range": [min(rates), max(rates)],
            "tokens_per_cpu_second": median(per_cpu),
            "seconds": median(whole),
            "seconds_by_turn": [median(turn) for turn in zip(*self.seconds, strict=True)],
        }


def make_policy(name: str, model: Path, plan: Plan, vllm_options: str) -> ChatPolicy:
    """Load a model into an engine.

    Args:
        name: One of `ENGINES`.
        model: Folder of a checkpoint.
        plan: Workload of generation.
        vllm_options: Further arguments of vLLM.
    """
    vllm = {"engine": "vllm", "vllm_options": vllm_options} if name == "vllm" else {}
    options = ModelOptions(
        temperature=1.0,
        max_new_tokens=plan.new_tokens,
        keep_cache=name != "transformers-whole",
        **vllm,  # type: ignore[arg-type]
    )
    return ChatPolicy.load(model, options=options)


def converse(policy: ChatPolicy, plan: Plan, seed: int) -> tuple[list[float], float, int]:
    """Generate whole conversations once.

    Args:
        policy: Holds the engine.
        plan: Workload of generation.
        seed: Of images and draws.

    Returns:
        Seconds of every turn, CPU seconds of all of them, and generated tokens.
    """
    random = np.random.default_rng(seed)
    slots = [Conversation(np.random.default_rng([seed, n])) for n in range(plan.conversations)]
    shape = (plan.image_size, plan.image_size, 3)
    seconds, tokens = [], 0
    cpu = cpu_clock(policy)
    before = cpu()
    for turn in range(plan.turns):
        for number, slot in enumerate(slots):
            image = random.integers(0, 256, shape, np.uint8)
            slot.show(f"The target to be segmented is organ {number}, turn {turn}.", image)
        began = time.perf_counter()
        tokens += sum(len(one.tokens) for one in policy.engine.generate(slots))
        seconds.append(time.perf_counter() - began)
    return seconds, cpu() - before, tokens


def cpu_clock(policy: ChatPolicy) -> Callable[[], float]:
    """Return a clock of the CPU seconds of this process, and of vLLM's where there is one."""
    sampler = getattr(policy.engine, "sampler", None)
    other = psutil.Process(sampler.process.pid) if sampler else None

    def read() -> float:
        theirs = other.cpu_times() if other else None
        return time.process_time() + (theirs.user + theirs.system if theirs else 0.0)

    return read


def measure(
    model: Annotated[str, typer.Option(help="Folder of a checkpoint; a tiny one if empty.")] = "",
    engines: Annotated[str, typer.Option(help="With commas between.")] = ",".join(ENGINES),
    conversations: Annotated[int, typer.Option(help="At once.")] = 64,
    turns: Annotated[int, typer.Option(help="Of a conversation, an image each.")] = 5,
    new_tokens: Annotated[int, typer.Option(help="Of a completion at most.")] = 20,
    image_size: Annotated[int, typer.Option(help="Side of an image, pixels.")] = 96,
    repetitions: Annotated[int, typer.Option(help="Timed ones.")] = 3,
    threads: Annotated[int, typer.Option(help="Of torch, in both.")] = 2,
    vllm_options: Annotated[str, typer.Option(help="As name=value;name=value.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/engines"),
) -> None:
    """Time the engines in turn and print tokens per second."""
    import os

    import torch

    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # vLLM's process has it from here
    plan = Plan(conversations, turns, new_tokens, image_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(model or build_model(Path(folder), plan))
        timed = [
            Timed(name, make_policy(name, path, plan, vllm_options)) for name in engines.split(",")
        ]
        try:
            for repetition in range(repetitions + 1):
                for one in timed:
                    seconds, cpu, tokens = converse(one.policy, plan, repetition)
                    if repetition:
                        one.seconds.append(seconds)
                        one.cpu_seconds.append(cpu)
                        one.tokens.append(tokens)
        finally:
            for one in timed:
                one.policy.close()
    rows = [one.row() for one in timed]
    console, machine = make_console(), describe_machine()
    console.print(as_table(rows, plan))
    console.print(f"Measured on: {machine}")
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "model": model or "tiny", "plan": vars(plan), "rows": rows}
    atomic_write(out / "results.json", json.dumps(results, indent=1))


def build_model(folder: Path, plan: Plan) -> Path:
    """Make a tiny random model with heads of 32, which vLLM needs on a CPU."""
    texts = [TERSE.opening, TERSE.turn, "The target to be segmented is organ, turn."]
    return build_tiny(folder, texts, TinyConfig(image_size=plan.image_size, hidden=128))


def as_table(rows: list[dict[str, Any]], plan: Plan) -> Table:
    """One row an engine."""
    table = Table(
        title=f"{plan.conversations} conversations of {plan.turns} turns, an image of "
        f"{plan.image_size} pixels each, {plan.new_tokens} new tokens at most"
    )
    turns = [f"turn {number + 1}, s" for number in range(plan.turns)]
    for header in ("engine", "tokens/s", "range", "tokens/CPU s", "s", *turns):
        table.add_column(header, justify="right")
    for row in rows:
        low, high = row["tokens_per_second_range"]
        table.add_row(
            row["engine"],
            f"{row['tokens_per_second']:.0f}",
            f"{low:.0f}-{high:.0f}",
            f"{row['tokens_per_cpu_second']:.0f}",
            f"{row['seconds']:.2f}",
            *(f"{spent:.2f}" for spent in row["seconds_by_turn"]),
        )
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
