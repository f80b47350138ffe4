"""Every table that a command prints keeps each character of its cells on any terminal."""

from __future__ import annotations

import ast
import io
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.text import Text
from typer.testing import CliRunner

from medseg_gym.cli.lazy_commands import every_command
from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.display.terminal import Console, Table

add_installed_commands(app)
COMMANDS = every_command(app)
ROOT = Path(__file__).parents[1]
TRAINERS = {name for name in COMMANDS if name.startswith("train ")}
"""They print the path of a model, and no table but that of `--plan`."""
SERVERS = {"serve", "play"}
POLICIES = "stop,oracle-box,centre-box"
WITHOUT_A_TABLE = {"export-model"}

WORDS = {
    "trajectories generate": (
        "--annotator noisy-hybrid --rollouts 4 --backbone ellipse --limit 3 --out store"
    ),
    "demo": "--limit 1 --out demo",
    "doctor": "--no-self-test",
    "cases list": "samples",
    "cases check": "samples",
    "cases card": "samples --out card",
    "cases show": "samples --out sheet.png",
    "cases convert": "samples converted --to parquet --limit 2",
    "backbones list": "",
    "backbones check": "ellipse",
    "trajectories summary": "store",
    "trajectories recover": "store",
    "trajectories replay": "store",
    "trajectories rescore": "store --reward dice_gain",
    "trajectories show": "store store.png",
    "trajectories export": "store store.jsonl --format jsonl",
    "trajectories pairs": "store pairs.parquet",
    "run": "image.png --target mass --policy centre-box --backbone ellipse --out run",
    "eval": "--limit 3 --policy centre-box --backbone ellipse --out eval",
    "compare": f"--limit 3 --policies {POLICIES} --backbones ellipse --out compare",
}
"""Words behind each command; a store is made first."""
MORE = {
    "compare volumes": (
        "compare --limit 1 --policies oracle-key-slice,stop --cases phantoms-volume "
        "--backbones ellipse --out volumes"
    ),
    "compare runs": "compare --runs eval compare --out runs",
    "plan": f"train grpo --plan 1x80 --model {ROOT}/configs/shapes/qwen3_vl_2b --lora-rank 16",
}
"""Further calls of commands that have more tables than one call prints."""


@dataclass
class Printed:
    """Tables and texts of the commands, and the modules that made the tables."""

    tables: dict[str, list[Table]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    makers: set[str] = field(default_factory=set)


def call(words: str) -> str:
    """Standard output of a command that must succeed."""
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> Iterator[Printed]:
    """Run every command once in a folder of its own."""
    printed = Printed()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tables"))
        make_files()
        shown: list[Table] = []
        render, make = Table.__rich_console__, Table.__init__

        def rendered(table, *arguments):
            shown.append(table)
            return render(table, *arguments)

        def made(table, *arguments, **options):
            printed.makers.add(sys._getframe(1).f_globals["__name__"])
            make(table, *arguments, **options)

        patch.setattr(Table, "__rich_console__", rendered)
        patch.setattr(Table, "__init__", made)
        for name, words in {**{name: f"{name} {WORDS[name]}" for name in WORDS}, **MORE}.items():
            shown.clear()
            printed.outputs[name] = call(words)
            printed.tables[name] = list(shown)
        patch.undo()
    yield printed


def make_files() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save("image.png")


def test_every_command_is_run() -> None:
    """A new command is added to the words above."""
    assert set(WORDS) | TRAINERS | SERVERS | WITHOUT_A_TABLE == set(COMMANDS)


def test_every_module_that_makes_tables_made_one(printed) -> None:
    modules = {
        ".".join(file.relative_to(root).with_suffix("").parts)
        for root in (ROOT, ROOT / "agents")
        for package in ("medseg_gym", "medseg_agents")
        for file in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "medseg_gym.display.terminal"
        and "Table" in {alias.name for alias in node.names}
    }
    assert len(modules) > 8 and modules == printed.makers


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("name", [*WORDS, *MORE])
def test_a_narrow_terminal_loses_nothing(printed, name, width) -> None:
    for table in printed.tables[name]:
        console = Console(width=width, file=io.StringIO())
        console.print(table)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= width
        assert "\N{HORIZONTAL ELLIPSIS}" not in text
        cells = [cell for column in table.columns for cell in (column.header, *column.cells)]
        words = [Text.from_markup(one).plain if isinstance(one, str) else str(one) for one in cells]
        lost = letters("".join(words)) - letters(text)
        assert not lost, (table.title, lost)


def letters(text: str) -> Counter[str]:
    return Counter(character for character in text if not character.isspace())


@pytest.mark.parametrize("name", [*WORDS, *MORE])
def test_a_pipe_gets_whole_lines(printed, name) -> None:
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed.outputs[name]
    assert "\x1b" not in printed.outputs[name]
