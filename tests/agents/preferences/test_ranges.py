"""Ranges that all runs of TRL's trainers share are checked before a run begins."""

from __future__ import annotations

import pytest
from medseg_agents.best_of_n.config import BestOfNRun
from medseg_agents.dpo.config import DpoConfig
from medseg_agents.sft.config import SftConfig

from medseg_gym.errors import MedSegError

RUNS = [
    (BestOfNRun, {"model": "m"}),
    (DpoConfig, {"model": "m", "pairs": ("p",)}),
    (SftConfig, {"trajectories": ("t",)}),
]


@pytest.mark.parametrize(("config", "needed"), RUNS, ids=[config.__name__ for config, _ in RUNS])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schedule", "step"),
        ("dtype", "float64"),
        ("save_dtype", "bfloat16"),
        *((name, 0) for name in ("batch_size", "accumulate", "log_every", "save_every")),
        ("epochs", 0),
        ("steps", 0),
        ("lora_rank", -1),
    ],
)
def test_a_value_out_of_range_is_named(config, needed, name, value):
    config(**needed)
    with pytest.raises(MedSegError, match=name):
        config(**needed, **{name: value})
