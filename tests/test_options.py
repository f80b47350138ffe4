"""Options declared once: prose under each field, YAML, JSON and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.envs.options import EnvOptions
from medseg_gym.errors import MedSegError
from medseg_gym.option_groups import EnvironmentOptions
from medseg_gym.option_values import convert, convert_options, declared_options
from medseg_gym.options import Options, describe_fields, repeated, short, specs


@dataclass(frozen=True, kw_only=True)
class CaseOptions(Options):
    topic: ClassVar[str] = "Cases"

    cases: str = "samples"
    """Case spec."""

    limit: int | None = None
    """First so many cases; left out plays
    all of them."""


@dataclass(frozen=True, kw_only=True)
class PlayOptions(CaseOptions):
    topic: ClassVar[str] = "Play"

    policy: str
    """Policy spec."""

    tools: tuple[str, ...] = ("box", "stop")
    mode: Literal["fast", "slow"] = "fast"
    rate: float = 1e-3
    check: bool = False


def test_prose_and_topics_come_from_the_class_that_declares_a_field():
    described = describe_fields(PlayOptions)
    assert described["limit"].text == "First so many cases; left out plays all of them."
    assert (described["limit"].topic, described["policy"].topic) == ("Cases", "Play")
    assert described["tools"].text == ""


@given(
    st.builds(
        PlayOptions,
        cases=st.text("abc:?=/ é", max_size=8),
        limit=st.none() | st.integers(1, 99),
        policy=st.text("abc", min_size=1),
        tools=st.lists(st.sampled_from(["box", "stop", "undo"])).map(tuple),
        mode=st.sampled_from(["fast", "slow"]),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        check=st.booleans(),
    )
)
def test_yaml_and_json_read_back(options):
    assert PlayOptions.from_mapping(yaml.safe_load(options.to_yaml())) == options
    assert PlayOptions.from_mapping(yaml.safe_load(options.to_json())) == options or (
        options.rate and not math.isclose(options.rate, round(options.rate, 12))
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"polcy": "x"}, "did you mean 'policy'"),
        ({}, "needs policy"),
        ({"policy": "x", "limit": "many"}, "limit cannot be 'many'"),
        ({"policy": "x", "mode": "z"}, "one of fast, slow"),
        ({"policy": None}, "policy cannot be None"),
        ({"policy": "x", "limit": True}, "limit cannot be True"),
        ({"policy": "x", "rate": float("nan")}, "finite"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(MedSegError, match=message):
        PlayOptions.from_mapping(values)


@pytest.mark.parametrize(
    ("text", "declared", "value"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        ("on", bool, True),
        ("none", int | None, None),
        ("3", int | str, 3),
        ("x", int | str, "x"),
        ("a+b", tuple[str, ...], ("a", "b")),
        ("1+2", tuple[int, int], (1, 2)),
        ("slow", Literal["fast", "slow"], "slow"),
        ("a/b", Path, Path("a/b")),
    ],
)
def test_texts_become_what_is_declared(text, declared, value):
    assert convert(text, declared) == value


@pytest.mark.parametrize(
    ("text", "declared"), [("x", int), ("inf", float), ("maybe", bool), ("1+2", tuple[int])]
)
def test_texts_that_a_type_does_not_have(text, declared):
    with pytest.raises(ValueError):
        convert(text, declared)


def test_options_of_a_signature():
    def make(codec, tau=0.01, retries: int = 3, name: str | None = None):
        """A factory."""

    declared = declared_options(make, skip=1)
    assert list(declared) == ["tau", "retries", "name"]
    values = convert_options("hybrid", {"tau": "0.5", "retries": "2"}, declared)
    assert values == {"tau": 0.5, "retries": 2}
    with pytest.raises(MedSegError, match=r"hybrid: no option 'tua' \(did you mean 'tau'\?\)"):
        convert_options("hybrid", {"tua": "1"}, declared)


@pytest.fixture
def run(tmp_path):
    seen = []

    def play(options: PlayOptions, out: Annotated[Path, typer.Option(help="Folder.")] = Path("o")):
        """Play."""
        seen.append((options, out))

    app = typer.Typer()
    app.command("play")(with_options(PlayOptions, play))
    app.command("other")(lambda: None)

    def run(*arguments):
        result = CliRunner().invoke(app, ["play", *map(str, arguments)])
        return (seen.pop() if seen else None), result

    return run


def test_the_command_line_wins_over_the_file(run, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("policy: random\nlimit: 3\ntools: [box]\n")
    (options, out), _ = run("--config", file, "--limit", 5, "--out", tmp_path)
    assert options == PlayOptions(policy="random", limit=5, tools=("box",)) and out == tmp_path


def test_printed_settings_are_a_file_of_settings(run, tmp_path):
    _, printed = run("--policy", "random", "--tools", "box,undo", "--print-config")
    file = tmp_path / "run.yaml"
    file.write_text(printed.output)
    (options, _), _ = run("--config", file)
    assert options == PlayOptions(policy="random", tools=("box", "undo"))
    assert "# First so many cases; left out plays all of them." in printed.output


def test_mistakes_of_the_command_line(run, tmp_path):
    _, result = run()
    assert isinstance(result.exception, MedSegError) and "--policy" in str(result.exception)
    file = tmp_path / "run.yaml"
    file.write_text("polcy: random\n")
    _, result = run("--config", file)
    assert "did you mean 'policy'" in str(result.exception)
    file.write_text("- a list\n")
    _, result = run("--config", file)
    assert "a mapping" in str(result.exception)


def test_help_is_grouped_by_topic(run):
    _, result = run("--help")
    assert result.output.index("Cases") < result.output.index("--limit")
    assert result.output.index("Play") < result.output.index("--policy")


@dataclass(frozen=True, kw_only=True)
class SheetOptions(CaseOptions):
    topic: ClassVar[str] = "Sheet"

    cases: str = "phantoms"
    sources: tuple[str, ...] = repeated("nifti:a?window=-100,300")
    """Case specs."""

    count: int = short("-n", 8)
    seeds: tuple[int, ...] = (0,)
    record: Path = Path("out")


def test_another_default_keeps_prose_and_topic():
    one = describe_fields(SheetOptions)["cases"]
    assert (one.text, one.topic, one.default) == ("Case spec.", "Cases", "phantoms")


def test_values_of_tuples_are_what_they_are_declared_as():
    assert SheetOptions.from_mapping({"seeds": ["1", 2]}).seeds == (1, 2)
    with pytest.raises(MedSegError, match="seeds cannot be"):
        SheetOptions.from_mapping({"seeds": ["x"]})


def test_a_file_of_another_class_is_refused():
    assert SheetOptions.from_mapping({"algorithm": "SheetOptions"}) == SheetOptions()
    with pytest.raises(MedSegError, match="settings of PPO, not of SheetOptions"):
        SheetOptions.from_mapping({"algorithm": "PPO"})
    assert SheetOptions(record=Path("a/b")).to_mapping()["record"] == "a/b"


def test_repeated_and_short_options_and_what_printing_does_not_need():
    seen = []

    def draw(options: SheetOptions, out: Annotated[Path, typer.Option(help="Folder.")]):
        """Draw."""
        seen.append(options)

    app = typer.Typer()
    app.command("draw")(with_options(SheetOptions, draw))
    arguments = ["--sources", "a,b", "--sources", "c", "-n", "3", "--seeds", "1,2"]
    assert CliRunner().invoke(app, [*arguments, "--out", "x"]).exit_code == 0
    expected = SheetOptions(sources=("a,b", "c"), count=3, seeds=(1, 2))
    assert seen == [expected]
    assert CliRunner().invoke(app, arguments).exit_code == 2  # --out is missing
    printed = CliRunner().invoke(app, [*arguments, "--print-config"])
    assert SheetOptions.from_mapping(yaml.safe_load(printed.output)) == expected and len(seen) == 1


@dataclass(frozen=True, kw_only=True)
class SpecOptions(Options):
    backbones: tuple[str, ...] = specs("medseg_gym.backbones:split", "pocket", "ellipse")
    """Backbone specs."""


@pytest.mark.parametrize(
    ("text", "backbones"),
    [
        (None, ("pocket", "ellipse")),
        ("ellipse?sizes=1,2,pocket", ("ellipse?sizes=1,2", "pocket")),
        ("pocket", ("pocket",)),
    ],
)
def test_lists_of_specs_are_split_where_a_spec_begins(text, backbones):
    seen = []
    app = typer.Typer()
    app.command("play")(with_options(SpecOptions, lambda options: seen.append(options)))
    app.command("other")(lambda: None)
    CliRunner().invoke(app, ["play", *(["--backbones", text] if text else [])])
    assert seen == [SpecOptions(backbones=backbones)]


@dataclass(frozen=True, kw_only=True)
class NeedyOptions(Options):
    reward: str
    """Name of the reward."""

    count: int = 2
    """Episodes."""


def test_printed_options_leave_a_place_for_what_is_needed():
    def play(options: NeedyOptions) -> None:
        raise AssertionError("printed alone")

    app = typer.Typer()
    app.command("play")(with_options(NeedyOptions, play))
    app.command("other")(lambda: None)
    printed = CliRunner().invoke(app, ["play", "--count", "3", "--print-config"])
    assert printed.exit_code == 0, printed.output
    assert "# Name of the reward.\n# reward:  (a value is needed)\n" in printed.output
    assert yaml.safe_load(printed.output) == {"count": 3}
    filled = printed.output.replace("# reward:  (a value is needed)", "reward: iou")
    assert NeedyOptions.from_mapping(yaml.safe_load(filled)) == NeedyOptions(reward="iou", count=3)


def test_arguments_of_environments_and_options_of_commands_have_the_same_defaults():
    arguments, options = (
        {one.name: one.default for one in fields(kind)} for kind in (EnvOptions, EnvironmentOptions)
    )
    shared = set(arguments) & set(options)
    assert shared >= {"backbone", "checkpoint", "device", "max_steps", "reward"}
    assert {n: arguments[n] for n in shared} == {n: options[n] for n in shared}
