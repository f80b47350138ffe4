"""The page of metrics names what runs log, all of it and nothing else."""

import re
from pathlib import Path

import pytest
import torch
from medseg_agents.grpo import train
from medseg_agents.grpo.settings import ChatPPORun, GRPORun
from medseg_agents.runs import alerts
from medseg_agents.runs.log import read_progress
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    "log_samples_every": 1,
}

SAMPLED = {"dynamic_sampling": True, "curriculum": "success"}

ON_VOLUMES = {"tool_use/look", "tool_use/propagate"}
"""Of tools that only volumes have."""

ON_A_GPU = {"memory/runner_peak", "memory/learner_peak"}


def table_names(text):
    """First cells of tables that are names."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def check_samples(folder, episodes):
    """The board has conversations of the iteration, some of its further rounds too."""
    board = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0, "images": 0})
    board.Reload()
    (text,) = board.Tensors("samples/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].startswith("| row | group | case | target | turn | image | shown | completion")
    turns = len(lines) - 2
    assert episodes <= turns <= 8 * SIZES["max_steps"]
    assert "phantoms/train/fundus" in lines[2] and "calls" in lines[2]
    # At most eight stand in one row.
    (strip,) = board.Images("samples/image")
    rows = -(-turns // 8)
    assert (strip.height, strip.width) == (rows * 64, min(turns, 8) * 64)


def test_the_page_of_metrics_names_what_is_logged(caller, ray_cluster, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logged, terms = set(), set()
    for run in (
        GRPORun(
            model=str(caller),
            groups=2,
            num_generations=2,
            beta=0.1,
            branch="turn",
            **SAMPLED,
            **SIZES,
        ),
        ChatPPORun(model=str(caller), groups=2, minibatches=1, **SIZES),
    ):
        folder = train.train_chat(run, tmp_path / type(run).__name__, console=Console(quiet=True))
        check_samples(folder.path, run.episodes)
        for row in read_progress(folder.path):
            terms |= {name.split("/")[1] for name in row if name.startswith("reward/")}
            logged |= {re.sub(r"^reward/\w+/", "reward/<term>/", name) for name in row}
    torch.set_num_threads(threads)
    calls = {f"dice/after_call_{k + 1}" for k in range(SIZES["max_steps"])}
    assert calls <= logged
    logged = logged - calls | {"dice/after_call_<k>"}
    written = table_names(PAGE.read_text(encoding="utf-8").partition("## Alerts")[0])
    assert len(written) == len(set(written))
    assert logged | ON_A_GPU | ON_VOLUMES == set(written)
    assert terms == {"dice_gain", "cost"}


def test_the_page_of_metrics_names_every_alert_with_its_thresholds():
    table = PAGE.read_text(encoding="utf-8").partition("## Alerts")[2]
    assert table_names(table) == [alert.name for alert in alerts.ALERTS]
    written = {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", table)}
    thresholds = {
        *(alerts.WINDOW, alerts.NO_SPREAD, alerts.CUT, alerts.VALID_LEAST, alerts.VALID_FALL),
        *(alerts.ENTROPY_FALL, alerts.CRITIC_LEAST, alerts.CRITIC_ROWS),
        *(*alerts.MISMATCH.values(), *alerts.KL.values()),
    }
    assert thresholds <= written
    for name in (*alerts.MISMATCH, *alerts.KL, *alerts.EXPLAINED):
        assert f"`{name}`" in table, name
