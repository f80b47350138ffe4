"""Properties of every command of `medseg`, those of installed packages included."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medseg_gym.cli.lazy_commands import every_command
from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.display.output import plain, print_result, showing
from medseg_gym.display.progress import make_progress
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from medseg_gym.thread_waiting import SPINS, VARIABLE, WAITS

add_installed_commands(app)
ROOT = Path(__file__).parents[1]
SERVERS = {"serve", "play"}


COMMANDS = every_command(app)
commands = pytest.mark.parametrize("name", COMMANDS)
with_results = pytest.mark.parametrize("name", sorted(set(COMMANDS) - SERVERS))


def flags(name) -> set[str]:
    return {flag for option in COMMANDS[name].params for flag in option.opts}


def calls_in(function) -> set[str]:
    """Names of functions that a function calls, those of its own module followed."""
    module = inspect.getmodule(function)
    called, left = set(), [function]
    while left:
        tree = ast.parse(inspect.getsource(left.pop()).lstrip())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for name in names - called:
            called.add(name)
            inner = getattr(module, name, None)
            if inspect.isfunction(inner) and inner.__module__.startswith(("medseg_", "benchm")):
                left.append(inner)
    return called


def implementation(name):
    """The function behind the command, without what adds options to it."""
    return inspect.unwrap(COMMANDS[name].callback)


@commands
def test_every_command_can_be_quiet(name) -> None:
    assert {"--quiet", "-q"} <= flags(name)


@with_results
def test_every_command_with_results_prints_them_as_json(name) -> None:
    assert "--json" in flags(name)
    called = calls_in(implementation(name))
    lazily = {"evaluate_by_protocol", "run_demo"} & called  # imported when they are needed
    assert "print_result" in called or lazily, called


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_has_no_results(name) -> None:
    assert "--json" not in flags(name)


def test_tables_and_bars_are_made_in_one_place() -> None:
    wanted = {"medseg_gym/display/progress.py", "medseg_gym/display/terminal.py"}
    bars = {"agents/medseg_agents/runs/progress_bar.py"}  # of training runs, beside their metrics
    own = set()
    for folder in ("medseg_gym", "agents"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (
                    (node.module == "rich.progress" and node.names[0].name != "TaskID")
                    or node.module == "rich.table"
                ):
                    own.add(file.relative_to(ROOT).as_posix())
    assert own <= wanted | bars


@commands
def test_an_unknown_option_is_answered_with_the_nearest(name) -> None:
    near = "--configg"
    if near[:-1] not in flags(name):
        near = "--quiett"
    words = name.split()
    result = CliRunner().invoke(app, [*words, near, "x"])
    assert isinstance(result.exception, SystemExit) and result.exit_code == 2
    assert f"No such option: {near}" in result.output and near[:-1] in result.output


@pytest.mark.parametrize("words", [["evla"], ["cases", "lst"], ["train", "grpp"], ["doctr"]])
def test_an_unknown_command_is_answered_with_the_nearest(words) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "No such command" in result.output
    assert "Did you mean" in result.output


@commands
def test_a_configuration_that_is_not_there_is_named(name, tmp_path) -> None:
    if "--config" not in flags(name):
        pytest.skip("takes no configuration")
    words = name.split() + ["x" for p in COMMANDS[name].params if p.param_type_name == "argument"]
    if "out" in {p.name for p in COMMANDS[name].params if p.param_type_name == "option"}:
        words += ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--config", str(tmp_path / "none.yaml")])
    assert isinstance(result.exception, MedSegError), result.output
    assert "cannot read the configuration" in str(result.exception)


def test_json_is_all_that_is_on_stdout(capsys) -> None:
    with showing(as_json=True):
        make_console().print("a table")
        print("what a library says")
        with make_progress() as bar:
            bar.update(bar.add_task("playing", total=2), completed=2)
        print_result({"dice": float("nan"), "file": Path("a/b"), "rows": [(1, True)]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"dice": None, "file": "a/b", "rows": [[1, True]]}
    assert "what a library says" in err and "playing" in err and "a table" not in err


def test_quiet_shows_nothing_but_json_if_it_is_asked_for(capsys) -> None:
    for as_json in (False, True):
        with showing(as_json=as_json, quiet=True):
            make_console().print("a table")
            with make_progress() as bar:
                bar.add_task("playing", total=2)
            print_result({"a": 1})
        out, err = capsys.readouterr()
        assert out == ('{"a": 1}\n' if as_json else "") and err == ""
    make_console().print("shown again")
    assert capsys.readouterr().out == "shown again\n"


def test_bars_go_to_stderr_and_tell_the_time_left(capsys) -> None:
    import numpy as np
    from rich.progress import TimeRemainingColumn

    with make_progress() as bar:
        bar.add_task("playing", total=2)
        assert any(isinstance(column, TimeRemainingColumn) for column in bar.columns)
    out, err = capsys.readouterr()
    assert out == "" and "playing" in err
    assert plain(np.array([1.0, np.inf])) == [1.0, None] and plain(np.float32(2)) == 2.0


def test_a_closed_pipe_is_no_traceback() -> None:
    command = [sys.executable, "-m", "medseg_gym.cli.main", "backbones", "list", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait(120)
    assert "Traceback" not in errors and "Broken" not in errors, errors


def test_doctor_says_what_is_there_and_plays_a_case(tmp_path) -> None:
    def doctor(*arguments):
        result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
        return result.exit_code, json.loads(result.stdout)

    code, printed = doctor("--device", "cpu")
    assert code == 0 and printed["self_test"]["ok"] and printed["self_test"]["dice"] > 0.5
    assert printed["versions"]["torch"] and printed["threads"]["usable_cores"] >= 1
    assert printed["devices"][0]["device"] == "cpu"
    assert all(
        one["install"] is None or '"' in one["install"] for one in printed["extras"].values()
    )
    code, printed = doctor("--backbone", "sam_vit_b", "--checkpoint", str(tmp_path / "none.pt"))
    assert code == 1 and "none.pt is not a file" in printed["self_test"]["message"]
    result = CliRunner().invoke(app, ["doctor", "--no-self-test"])
    assert result.exit_code == 0 and "not set" in result.stdout and "self test" not in result.stdout
    assert "threads that wait" in result.stdout and "OMP_WAIT_POLICY" in result.stdout


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        ("active", "threads that wait may spin"),
        ("passive", "threads that wait sleep, and"),
        ("brief", "threads that wait sleep after 1000 turns of a loop, and"),
    ],
)
def test_doctor_says_how_threads_wait(wait, says, monkeypatch) -> None:
    for name in (VARIABLE, SPINS):
        monkeypatch.delenv(name, raising=False)
    for name, value in WAITS[wait].items():
        monkeypatch.setenv(name, value)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["doctor", "--no-self-test"])
    assert result.exit_code == 0 and says in " ".join(result.stdout.split())
