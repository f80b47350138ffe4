"""Commands that this package adds: `medseg play | run | eval | compare | train | export-model`."""

from __future__ import annotations

import typer

from medseg_gym.cli.lazy_commands import add_lazily
from medseg_gym.cli.monailabel.policy_specs import use_maker

_COMMANDS = (
    (
        "run",
        "play:run_command",
        "Segment one image or scan: writes its mask, images and record.json. Not for clinical use.",
    ),
    (
        "eval",
        "play:eval_command",
        "Play a whole data set; writes records.jsonl, results.json, summary.json and summary.csv.",
    ),
    (
        "compare",
        "compare:compare_command",
        "Compare policies: prints tables, writes results as JSON and CSV, and figures of them.",
    ),
    (
        "play",
        "page:play_command",
        "Play in the browser what agents play. Not for clinical use.",
    ),
    (
        "export-model",
        "export_model:export_command",
        "Write a trained model as a checkpoint that transformers (or peft) loads by itself.",
    ),
    ("train", "trainers:train_app", "Train a policy."),
)


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this package to `medseg`; called through an entry point."""
    use_maker("medseg_agents.policies:make")
    for name, path, text in _COMMANDS:
        add_lazily(app, name, f"medseg_agents.commands.{path}", text)
