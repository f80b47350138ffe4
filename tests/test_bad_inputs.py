"""A user's mistake is answered with a sentence that says what is wrong, never with a traceback."""

from __future__ import annotations

import pytest
from medseg_agents.commands.page import PlayPageOptions
from typer.testing import CliRunner

from medseg_gym.cli.lazy_commands import every_command
from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.cli.serve import AddressOptions
from medseg_gym.errors import MedSegError

add_installed_commands(app)

MISTAKES = {
    "cases": (
        "nonsense:x",
        "folder:nowhere?target=a",
        "phantoms:abdomn",
        "samples?x=1",
        "./no.py:X",
    ),
    "split": ("tset",),
    "backbone": ("pockt", "pocket?sise=1"),
    "backbones": ("pockt", "ellipse,pockt"),
    "policy": ("oracl-box", "llm:nowhere", "sb3:nowhere", "oracle-box?loosn=1", "./no.py:X"),
    "policies": ("oracl-box", "stop?x=1", ""),
    "reward": ("dice_gian", "dice_gain +"),
    "device": ("cdua", "cuda:99"),
    "limit": ("-1", "abc"),
    "num_envs": ("0",),
    "max_steps": ("0",),
    "annotator": ("oracl",),
    "schedule": ("cosin",),
    "extend_schedule": ("holt",),
    "to": ("parqet",),
    "by": ("modalty",),
    "save": ("nifty",),
    "log_to": ("wandbb",),
    "seeds": ("a", "0,-1", ""),
    "seed": ("x", "-1", str(2**32)),
    "clone": ("nowhere",),
    "trajectories": ("nowhere.parquet",),
    "pairs": ("nowhere.parquet",),
    "model": ("nowhere",),
    "steps": ("0",),
    "iterations": ("0",),
    "extend": ("-1", "3"),
    "optimiser": ("adm",),
    "loss_type": ("gpro",),
    "protocol": ("interactiv",),
    "axis": ("axail",),
    "window": ("a,b",),
    "threads": ("0",),
    "workers": ("0",),
    "count": ("0",),
    "tools": ("positive_pont",),
}
"""Values that an option cannot have, by the option's name."""

WRONG_ARGUMENTS = {
    "spec": MISTAKES["cases"],
    "store": ("nowhere", "file", "."),
    "image": ("nowhere.png", "file", "."),
    "name": MISTAKES["backbone"],
    "model": ("nowhere", "file", "."),
}
"""Values that an argument cannot have, by its name."""

ARGUMENTS = {
    "spec": "samples",
    "store": "nowhere",
    "image": "nowhere.png",
    "name": "ellipse",
    "model": "nowhere",
    "out": "out.bin",
}
NEEDED = {"policy": "stop", "target": "x", "to": "parquet", "model": "nowhere"}


SERVERS = {"serve", "play"}  # which would run until they are stopped
COMMANDS = every_command(app)
assert len(COMMANDS) > 20
TRIALS = [
    (name, option.name, value)
    for name, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option" and name not in (*SERVERS, "doctor")  # which reports it
    for value in MISTAKES.get(option.name, ())
] + [
    (name, argument.name, value)
    for name, command in COMMANDS.items()
    for argument in command.params
    if argument.param_type_name == "argument"
    for value in WRONG_ARGUMENTS.get(argument.name, ())
]


@pytest.mark.filterwarnings("ignore")  # of libraries that are asked for what is not there
@pytest.mark.parametrize(("name", "option", "value"), TRIALS)
def test_a_mistake_is_answered_with_a_sentence(name, option, value, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("something else")
    parameters = {one.name: one for one in COMMANDS[name].params}
    words = name.split()
    for one in parameters.values():
        flag = one.opts[-1]
        if one.param_type_name == "argument":
            words.append(value if one.name == option else ARGUMENTS[one.name])
        elif one.name == option:
            words.append(f"{flag}={value}")
        elif one.name in NEEDED:
            words.append(f"{flag}={NEEDED[one.name]}")
        elif one.name == "out":
            words.append(f"{flag}={tmp_path / 'out'}")
    result = CliRunner().invoke(app, words)
    error = result.exception
    if isinstance(error, SystemExit):  # of the command line itself
        assert result.exit_code == 2 and "Error" in result.output, result.output
    else:
        assert isinstance(error, MedSegError), (error, result.output)
        assert len(str(error)) > 10 and "Traceback" not in str(error)


@pytest.mark.parametrize("port", [-1, 65536])
@pytest.mark.parametrize("kind", [AddressOptions, PlayPageOptions])
def test_a_port_is_one_of_a_machine(kind, port) -> None:
    with pytest.raises(MedSegError, match=f"port must be from 0 to 65535, got {port}"):
        kind(port=port)


@pytest.mark.parametrize("content", ['{"algorithm": "SB3PPOConfig"}', '{"model_type": "x"}', "{"])
@pytest.mark.parametrize("words", ["eval --policy", "compare --policies"])
def test_a_folder_of_something_else_is_left_as_it_is(content, words, tmp_path) -> None:
    (tmp_path / "config.json").write_text(content)
    given = [*words.split(), "stop", "--limit", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, given)
    assert isinstance(result.exception, MedSegError), result.output
    assert "give another --out" in str(result.exception)
    assert (tmp_path / "config.json").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
