"""Steps of GRPO with a language model of real vocabulary and some hundred million parameters.

    python -m benchmarks.gpu.rl --out out/gpu
    python -m benchmarks.gpu.rl --device cpu --small

Each row of the table is one way to train: all weights or adapters, bfloat16 autocast or float32,
first prompts of a group computed once or in every row, and the loss in chunks or whole where this
version has that option. The model is Qwen3-VL's architecture with random weights and Qwen's
vocabulary; it makes no valid call, so that every episode has `max_steps` turns, and groups have no
spread: the gradient is zero, its computation is not. What is seen: speed of sampling and of the
gradient step, peak memory of each, and how far the sampler's probabilities are from the learner's.
The table comes last; rows for which `--seconds` do not suffice are left out, and that is said.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from medseg_agents.runs.machine import describe_machine

from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

VOCABULARY = 151_936
CHUNKED = "logit_chunk"
"""Field of `ChatSettings` that computes the loss in chunks, in versions that have it."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Workload to compute.

    Args:
        hidden: Width of text and vision.
        layers: Of the language model.
        vision_layers: Of the vision tower.
        heads: Of both.
        patch: Side of a patch.
        vocabulary: Rows of the embedding; None as the tokenizer has.
        image_size: Side of the image.
        groups: Cases of an iteration.
        num_generations: Episodes of a case.
        max_steps: Turns of an episode.
        max_completion_length: Tokens of a turn.
        micro_batch: Rows of a gradient pass.
        rank: Of adapters.
        iterations: Timed, after one that is not.
    """

    hidden: int = 1024
    layers: int = 14
    vision_layers: int = 6
    heads: int = 16
    patch: int = 16
    vocabulary: int | None = VOCABULARY
    image_size: int = 256
    groups: int = 4
    num_generations: int = 8
    max_steps: int = 3
    max_completion_length: int = 32
    micro_batch: int = 8
    rank: int = 32
    iterations: int = 3


SMALL = Size(
    hidden=64,
    layers=2,
    vision_layers=1,
    heads=4,
    patch=8,
    vocabulary=None,
    image_size=64,
    groups=1,
    num_generations=2,
    max_steps=2,
    max_completion_length=8,
    micro_batch=2,
    rank=2,
    iterations=1,
)
"""For a CPU, and to see that the program runs."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train.

    Args:
        trained: "all" weights or "adapters".
        precision: Of `ChatSettings`.
        shared: Whether first prompts are computed once.
        chunked: Value of `CHUNKED`; None leaves it as it is.
    """

    trained: str
    precision: str = "bfloat16"
    shared: bool = True
    chunked: int | None = None

    @property
    def name(self) -> str:
        """Name of its row."""
        words = [self.trained, self.precision, "shared prompts" if self.shared else "whole rows"]
        if self.chunked is not None:
            words.append(f"chunks of {self.chunked}" if self.chunked else "loss whole")
        return ", ".join(words)


def variants(options: set[str]) -> list[Variant]:
    """Return the rows of the table, the most telling first.

    Args:
        options: Fields of `ChatSettings` in this version.
    """
    rows = [
        Variant(trained=trained, shared=shared)
        for shared in (True, False)
        for trained in ("all", "adapters")
    ]
    rows.append(Variant(trained="all", precision="float32"))
    if CHUNKED in options:
        rows[1:1] = [Variant(trained="all", chunked=size) for size in (0, 256)]
    return rows


def build_random(path: Path, size: Size) -> int:
    """Save a random model with its processor, and return the number of its parameters."""
    from medseg_agents.llm.checkpoint import save_view
    from medseg_agents.llm.tiny_model import TinyConfig, build_model, build_processor

    config = TinyConfig(
        image_size=size.image_size,
        patch=size.patch,
        hidden=size.hidden,
        layers=size.layers,
        vision_layers=size.vision_layers,
        heads=size.heads,
    )
    processor = build_processor(["liver in abdomen CT", "fundus photograph, optic disc"], config)
    model = build_model(processor, config)
    if size.vocabulary is not None:
        model.resize_token_embeddings(size.vocabulary, mean_resizing=False)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    save_view(path, {"image_size": size.image_size, "texts": "terse"}, {})
    return int(sum(p.numel() for p in model.parameters()))


def make_algorithm(model: Path, size: Size, variant: Variant, device: str) -> Any:
    """Build GRPO in this process, sampler and learner with the same weights."""
    from medseg_agents.grpo import GRPOConfig
    from medseg_agents.grpo.settings import ChatSettings

    options = {field.name for field in fields(ChatSettings)}
    wanted: dict[str, Any] = {
        "model": str(model),
        "groups": size.groups,
        "num_generations": size.num_generations,
        "max_completion_length": size.max_completion_length,
        "micro_batch": size.micro_batch,
        "lora_rank": size.rank if variant.trained == "adapters" else 0,
        "precision": variant.precision,
        "share_prompts": variant.shared,
        "max_ratio_deviation": None,  # looked at, not enforced
    }
    if variant.chunked is not None:
        wanted[CHUNKED] = variant.chunked
    config = GRPOConfig()
    config.environment(
        env_config={
            "cases": "phantoms:fundus",
            "backbone": "ellipse",
            "image_size": size.image_size,
            "texts": "terse",
            "max_steps": size.max_steps,
        }
    )
    config.training(lr=1e-6).debugging(seed=0, log_level="ERROR")
    if device == "cuda":
        config.learners(num_learners=0, num_gpus_per_learner=1)
    config.chat(**{name: value for name, value in wanted.items() if name in options})
    return config.build_algo()


def measure_variant(model: Path, size: Size, variant: Variant, device: str) -> dict[str, Any]:
    """Train one untimed and some timed iterations.

    Raises:
        MedSegError: The learner is not on the device that was asked for.
    """
    from medseg_agents.grpo.metrics import read_result

    algo: Any = make_algorithm(model, size, variant, device)
    try:
        module = algo.own_module()
        where = next(module.parameters()).device.type
        if where != device:
            raise MedSegError(f"the learner is on {where}, not on {device}; is the GPU free?")
        trained = sum(p.numel() for p in module.trained().values())
        algo.train()
        began = time.perf_counter()
        results = [algo.train() for _ in range(size.iterations)]
        seconds = (time.perf_counter() - began) / size.iterations
    finally:
        algo.stop()
        del algo
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    rows = [read_result(result) for result in results]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    tokens = sum(float(result["env_runners"]["tokens"]) for result in results) / len(results)
    return {
        "variant": variant.name,
        "trained_millions": trained / 1e6,
        "seconds": seconds,
        "episodes_per_second": size.groups * size.num_generations / seconds,
        "sampled_tokens_per_second": means["tokens_per_second"],
        "update_seconds": means["time/update"],
        "learned_tokens_per_second": tokens / means["time/update"],
        **{name: v for name, v in means.items() if name.startswith(("memory/", "sampling/"))},
    }


def as_table(rows: list[dict[str, Any]], title: str) -> Table:
    """One row per variant; what no variant has is no column."""
    table = Table(title=title)
    headers = list(dict.fromkeys(name for row in rows for name in row))
    for header in headers:
        table.add_column(header.replace("_", " "), justify="right")
    for row in rows:
        cells = [row.get(header, "") for header in headers]
        table.add_row(*(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    return table


def measure(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    small: Annotated[bool, typer.Option(help="A tiny model: only to see that it runs.")] = False,
    seconds: Annotated[float, typer.Option(help="No further row is begun after them.")] = 420,
    out: Annotated[Path, typer.Option(help="Folder for rl.json.")] = Path("out/gpu"),
) -> None:
    """Time every variant and print the table."""
    from medseg_agents.arrays.rllib.train import start_ray
    from medseg_agents.grpo.settings import ChatSettings

    if device not in ("cuda", "cpu"):
        raise MedSegError(f"--device must be cuda or cpu, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise MedSegError("there is no GPU that torch can use; --device cpu --small runs without")
    size = SMALL if small else Size()
    console, began = make_console(), time.perf_counter()
    start_ray()
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        parameters = build_random(Path(folder), size)
        for variant in variants({field.name for field in fields(ChatSettings)}):
            if time.perf_counter() - began > seconds:
                left_out.append(variant.name)
                continue
            rows.append(measure_variant(Path(folder), size, variant, device))
            console.print(f"{variant.name}: {rows[-1]['seconds']:.2f} s an iteration")
    machine = describe_machine(device)
    results = {
        "machine": machine,
        "parameters": parameters,
        "size": vars(size),
        "rows": rows,
        "left_out": left_out,
    }
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "rl.json", json.dumps(results, indent=1))
    for name in left_out:
        console.print(f"left out for want of time: {name}")
    title = (
        f"GRPO, {parameters / 1e6:.4g} million parameters, {size.groups} groups of "
        f"{size.num_generations}, {size.max_steps} turns; {machine}; memory in GiB"
    )
    console.print(as_table(rows, title))


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
