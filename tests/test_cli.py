"""The commands a user types, run as they would be."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from medseg_gym.backbones import registry
from medseg_gym.cli import main as cli
from medseg_gym.cli.lazy_commands import with_ray_address
from medseg_gym.errors import CheckpointError, MedSegError


def medseg(*arguments: str) -> str:
    """Standard output of `medseg ARGUMENTS` in a pipe; expected errors are raised."""
    result = CliRunner().invoke(cli.app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(autouse=True)
def _no_weight_files(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_LOADED", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDSEG_CHECKPOINTS", raising=False)


def test_demo_prints_a_table_and_writes_pictures(monkeypatch, tmp_path):
    from PIL import Image

    out = tmp_path / "demo"
    text = medseg("demo", "--backbones", "ellipse", "--limit", "3", "--out", str(out))
    for word in ("random", "centre-box", "oracle-click", "oracle", "Not for clinical use"):
        assert word in text
    with Image.open(out / "sheet.png") as sheet, Image.open(out / "episode.gif") as gif:
        assert sheet.size[0] > 600 and sheet.size[1] > 600
        assert gif.n_frames == 6  # before the first step and after each of five clicks


def test_demo_on_phantoms_says_that_they_are_synthetic(monkeypatch, tmp_path):
    options = ("--backbones", "ellipse", "--cases", "phantoms", "--limit", "2")
    assert "synthetic" in medseg("demo", *options, "--out", str(tmp_path))


def test_cases_list_counts_by_split_and_target(monkeypatch):
    text = medseg("cases", "list", "samples")
    row = next(line for line in text.splitlines() if "lung mass" in line)
    assert "test" in row and "CT" in row and "11" in row
    text = medseg("cases", "list", "phantoms:brain", "--limit", "8")
    assert "MRI (synthetic)" in text and "the first 8 of 100000" in text


def test_backbones_list_says_what_is_missing_and_where_it_goes(monkeypatch, tmp_path):
    text = medseg("backbones", "list")
    row = next(line for line in text.splitlines() if "imisnet" in line)
    assert "box, point, text" in row and "182.5" in row and "missing" in row
    assert str(tmp_path / "cache" / "medseg_gym" / "checkpoints") in text
    assert "sam_vit_b: sam_vit_b_01ec64.pth from https://" in text
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"not looked into")
    monkeypatch.setenv("MEDSEG_CHECKPOINTS", str(tmp_path))
    text = medseg("backbones", "list")
    assert f"sam_vit_b: found {tmp_path / 'sam_vit_b_01ec64.pth'}" in text


def test_backbones_list_names_the_extra_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("medseg_gym.backbones.spec.find_spec", lambda name: None)
    text = medseg("backbones", "list")
    row = next(line for line in text.splitlines() if "medsam2" in line)
    assert '"medseg-gym[sam2]"' in row


def test_backbones_check_measures_box_and_click(monkeypatch):
    text = medseg("backbones", "check", "ellipse")
    assert "Dice, tight box" in text and "0.777" in text and "ms" in text
    pytest.importorskip("sam2")
    options = ("--random-weights", "--image-size", "64", "--dtype", "bfloat16")
    text = medseg("backbones", "check", "medsam2", *options)
    assert "39.0 M" in text and "Dice, one click" in text


def test_backbones_check_of_a_bad_file_ends_in_one_line(monkeypatch, tmp_path, capsys):
    bad = tmp_path / "weights.pth"
    bad.write_bytes(b"\x00" * 64)
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        medseg("backbones", "check", "sam_vit_b", "--checkpoint", str(bad))
    monkeypatch.setattr("sys.argv", ["medseg", "backbones", "check", "sam_vit_b"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_missing_package_is_named_with_the_extra_that_brings_it(capsys):
    with pytest.raises(SystemExit) as ended, cli.plain_errors(program=True):
        raise ModuleNotFoundError("No module", name="stable_baselines3.common")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error == (
        'error: stable_baselines3.common is not installed: pip install "medseg-gym[sb3]"\n'
    )
    with pytest.raises(ModuleNotFoundError), cli.plain_errors(program=True):
        raise ModuleNotFoundError("No module", name="nobody_knows_it")


def test_a_file_that_the_system_refuses_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended, cli.plain_errors(program=True):
        (tmp_path / "file").write_text("x")
        (tmp_path / "file" / "inner").mkdir()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/file/inner: Not a directory\n"


def test_another_package_called_agents_is_named(monkeypatch):
    import typer

    class Entry:
        value = "medseg_agents.commands.entry:add_commands"

        def load(self):
            raise AttributeError("no add_commands")

    monkeypatch.setattr(cli, "entry_points", lambda group: [Entry()])
    with pytest.raises(
        MedSegError, match=r"'medseg_agents.commands.entry:add_commands' cannot be loaded.*agents"
    ):
        cli.add_installed_commands.__wrapped__(typer.Typer())


def test_the_version_is_printed(monkeypatch):
    import medseg_gym

    assert medseg("--version") == f"medseg-gym {medseg_gym.__version__}\n"


def _lazy_commands():
    import typer

    cli.add_installed_commands(cli.app)
    return typer.main.get_command(cli.app).commands


@pytest.mark.parametrize(
    "name",
    [
        *("demo", "run", "eval", "compare", "play", "train", "trajectories", "cases", "backbones"),
        *("doctor", "serve", "export-model"),
    ],
)
def test_the_list_of_commands_says_what_each_says_of_itself(name):
    command = _lazy_commands()[name]
    assert command.help == command.loaded.help.partition("\n\n")[0].replace("\n", " ")


HEAVY = ("torch", "scipy", "PIL", "numpy", "gymnasium", "torchvision", "matplotlib", "ray")


def test_the_list_of_commands_is_read_without_their_modules():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from medseg_gym.cli.main import add_installed_commands, app\n"
        "add_installed_commands(app)\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([m for m in sys.modules if m.partition('.')[0] in {HEAVY}])\n"
        "print([m for m in sys.modules if m.startswith('medseg_agents.')])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "[]",
        "['medseg_agents.commands', 'medseg_agents.commands.entry']",
    ]


@pytest.mark.parametrize(
    "arguments",
    [("train", "grpo"), ("train", "sb3-ppo"), ("train", "dpo"), ("eval",), ("play",), ("serve",)],
)
def test_options_are_listed_without_torch(arguments):
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from medseg_gym.cli.main import add_installed_commands, app\n"
        "add_installed_commands(app)\n"
        f"assert CliRunner().invoke(app, [*{arguments!r}, '--help']).exit_code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], []),
        (["--ray"], ["--ray", "local"]),
        (["--ray", "--quiet"], ["--ray", "local", "--quiet"]),
        (["--ray", "auto", "--quiet"], ["--ray", "auto", "--quiet"]),
    ],
)
def test_ray_needs_no_address_and_commands_no_words(words, wanted, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert with_ray_address(words) == wanted
