"""Steps of GRPO with a language model of real vocabulary and some hundred million parameters.

Each row is one way to train: all weights or adapters, bfloat16 autocast or float32,
first prompts of a group computed once or in every row, and the loss in chunks or whole where this
version has that option. The model is Qwen3-VL's architecture with random weights and Qwen's
vocabulary; it makes no valid call, so that every episode has `max_steps` turns, and groups have no
spread: the gradient is zero, its computation is not. What is seen: speed of sampling and of the
gradient step, peak memory of each, and how far the sampler's probabilities are from the learner's.
"""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.rows import FAILED, MEASURED, Job
from medseg_gym.errors import MedSegError

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
        for trained in ("all", "adapters")
        for shared in (True, False)
    ]
    rows.append(Variant(trained="all", precision="float32"))
    if CHUNKED in options:
        rows[2:2] = [Variant(trained="all", chunked=size) for size in (0, 256)]
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


def run(job: Job) -> None:
    """Time the variants for which there is time."""
    import ray
    from medseg_agents.arrays.rllib.train import start_ray
    from medseg_agents.grpo.settings import ChatSettings

    size = SMALL if job.small else Size()
    start_ray()
    try:
        with tempfile.TemporaryDirectory() as folder:
            parameters = build_random(Path(folder), size)
            model = f"{parameters / 1e6:.4g} M parameters"
            model += f", {size.groups} groups of {size.num_generations}, {size.max_steps} turns"
            for variant in variants({field.name for field in fields(ChatSettings)}):
                what = f"{model}, {variant.name}"
                if job.late(what):
                    continue
                try:
                    row = measure_variant(Path(folder), size, variant, job.device)
                except torch.OutOfMemoryError as error:
                    job.add(what, FAILED, str(error).splitlines()[0])
                    continue
                job.add(what, MEASURED, in_words(row), numbers=row)
    finally:
        ray.shutdown()


def in_words(row: dict[str, Any]) -> str:
    """Return what is told first about a variant."""
    memory = [f"{name.removeprefix('memory/')} {value:.3g} GiB" for name, value in row.items()
              if name.startswith("memory/")]  # fmt: skip
    return "; ".join(
        [
            f"{row['seconds']:.3g} s an iteration, gradients {row['update_seconds']:.3g} s",
            f"{row['sampled_tokens_per_second']:.4g} tokens/s sampled",
            f"{row['learned_tokens_per_second']:.4g} learned",
            *memory,
        ]
    )
