"""A finished run against the baselines, on the test split, which no training step ever saw."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from medseg_agents import policies
from medseg_agents.arrays.config import ArraySettings
from medseg_agents.evaluation.comparison import Comparison, compare
from medseg_agents.evaluation.options import CompareOptions

BASELINES = ("stop", "random", "centre-box", "oracle-click")
"""Beside the target's location prior, which is of the run's own cases."""


def compare_run(kind: str, config: ArraySettings, out: Path, console: Console) -> Comparison:
    """Play the run's newest checkpoint, likeliest and drawn actions, beside the baselines.

    Args:
        kind: "sb3" or "rllib".
        config: Of the run; `test_cases` of its cases are played.
        out: Folder of the run; results go to `test/` in it.
        console: For the tables.
    """
    trained = f"{kind}:{out}"
    names = [*BASELINES, f"location-prior:{config.cases}", trained, f"{trained}?sampled=1"]
    options = CompareOptions(
        policies=tuple(names),
        cases=config.cases,
        split="test",
        backbones=(config.backbone,),
        checkpoint=(f"{config.backbone}={config.checkpoint}",) if config.checkpoint else (),
        device=config.device,
        max_steps=config.max_steps,
        num_envs=config.num_envs,
        seeds=(config.seed,),
        limit=config.test_cases,
        by="modality",
    )
    comparison = compare([policies.make(name) for name in names], options, out / "test")
    comparison.show(console)
    comparison.write(out / "test")
    return comparison
