"""Tables lose nothing on narrow terminals, and a reader that goes away costs no results."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from medseg_gym.display.terminal import Console, Table

HEADERS = ("backbone", "policy", "subset", "n", "groups", "Dice [95 %]", "IoU [95 %]", "s/case")


def wide_table() -> Table:
    table = Table(keys=3, title="all of it", caption="a word on it")
    for header in HEADERS:
        table.add_column(header, no_wrap=True)
    table.add_column("note")
    for number in range(3):
        cells = [f"{header[:3]}-{number}" for header in HEADERS]
        cells[5] = f"0.{number}12 [0.890, 0.934]"
        table.add_row(*cells, f"oracle, synthetic pictures, note{number}")
    return table


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_every_cell_is_printed(width) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(wide_table())
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    if width >= 60:
        for header in (*HEADERS, "note"):
            assert f" {header} " in text, header
        for number in range(3):
            assert f"0.{number}12 [0.890, 0.934]" in text and f"note{number}" in text
            assert f" n-{number} " in text
    squeezed = "".join(character for character in text if character.isalnum())
    assert "n2" in squeezed and "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count("all of it") == text.count("a word on it") == 1
    parts = text.count("\N{BOX DRAWINGS HEAVY DOWN AND RIGHT}")
    assert (parts == 1) == (width == 200 or width == 120) or width < 120


def test_a_table_that_fits_is_as_rich_prints_it() -> None:
    import rich.table
    from rich.console import Console as Plain

    texts = []
    for kind in (Table, rich.table.Table):
        table = kind("a", "b", title="t")
        table.add_row("1", "2")
        console = Plain(width=40, file=io.StringIO())
        console.print(table)
        texts.append(console.file.getvalue())
    assert texts[0] == texts[1]


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 3])
def test_a_closed_pipe_loses_no_results(tmp_path, lines) -> None:
    command = [sys.executable, "-m", "medseg_gym.cli.main", "compare"]
    command += ["--policies", "stop,centre-box"]
    command += ["--backbones", "ellipse", "--limit", "4", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(120) == 0 and "Traceback" not in errors and "Broken" not in errors, errors
    for name in ("results.json", "results.csv", "dice_by_step.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100


def test_a_closed_pipe_ends_what_only_prints(tmp_path) -> None:
    command = [sys.executable, "-m", "medseg_gym.cli.main", "cases", "check", "samples", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait(120)
    assert "Traceback" not in errors and "Broken" not in errors, errors
