"""The page of metrics names what runs log, all of it and nothing else."""

import re
from pathlib import Path

import pytest
import torch
from medseg_agents.grpo import train
from medseg_agents.grpo.settings import ChatPPORun, GRPORun
from medseg_agents.runs.log import read_progress
from rich.console import Console

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
SIZES = {
    "cases": "phantoms:fundus",
    "backbone": "ellipse",
    "max_steps": 2,
    "max_completion_length": 24,
    "iterations": 1,
    "eval_every": 1,
    "eval_cases": 2,
}


def test_the_page_of_metrics_names_what_is_logged(caller, ray_cluster, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logged, terms = set(), set()
    for run in (
        GRPORun(model=str(caller), groups=2, num_generations=2, beta=0.1, branch="turn", **SIZES),
        ChatPPORun(model=str(caller), groups=2, **SIZES),
    ):
        folder = train.train_chat(run, tmp_path / type(run).__name__, console=Console(quiet=True))
        for row in read_progress(folder.path):
            terms |= {name.split("/")[1] for name in row if name.startswith("reward/")}
            logged |= {re.sub(r"^reward/\w+/", "reward/<term>/", name) for name in row}
    torch.set_num_threads(threads)
    written = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(written) == len(set(written))
    assert logged == set(written)
    assert terms == {"dice_gain", "cost"}
