"""The wheel, installed beside the well-known distribution that owns a package called `agents`."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TREE = ("medseg_gym", "agents", "benchmarks", "scripts", "tests")
DATA = (
    "medseg_gym/py.typed",
    "medseg_agents/py.typed",
    "medseg_gym/cases/samples/data/index.json",
    "medseg_gym/backbones/families/pocket/weights/pocket.safetensors",
    "medseg_gym/play/static/index.html",
    "medseg_gym/play/static/main.js",
)


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that sees nothing of this checkout."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, out: Path) -> Path:
    """Build the wheel of a source tree; nothing is downloaded."""
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"),
        *("-q", "-w", out, source),
        cwd=source,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built from a copy."""
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    for name in TREE:
        if name == "tests":  # only there to be left out
            (source / name).mkdir()
            (source / name / "__init__.py").touch()
        else:
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    return build(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Folder of the programs of a fresh environment with the wheel and another `agents`."""
    other = tmp_path_factory.mktemp("openai-agents")
    (other / "agents").mkdir()
    (other / "agents" / "__init__.py").write_text("OWNER = 'openai-agents'\n")
    (other / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "openai-agents"\nversion = "0.0.1"\n'
        '[tool.setuptools]\npackages = ["agents"]\n'
    )
    stub = build(other, tmp_path_factory.mktemp("stub"))
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install", "-q")
    for file in (wheel, stub):
        run(*pip, "--no-deps", "--no-index", file, cwd=folder)
    # Dependencies are those of the environment that runs the tests; what was installed goes first.
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(programs / "python", "-c", code, cwd=folder).strip())
    (packages / "tests_environment.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return programs


def test_the_wheel_holds_two_packages_and_their_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "medseg_gym",
        "medseg_agents",
    }
    assert set(DATA) <= names, set(DATA) - names
    for folder, pattern in (
        ("medseg_gym/cases/samples/data", "**/*"),
        ("medseg_gym/play/static", "**/*"),
    ):
        files = {
            file.relative_to(ROOT).as_posix()
            for file in (ROOT / folder).glob(pattern)
            if file.is_file()
        }
        assert files <= names, sorted(files - names)[:5]


def test_the_commands_work_beside_another_package_called_agents(environment, tmp_path):
    for arguments in (["--help"], ["demo", "--help"]):
        assert "Usage: medseg" in run(environment / "medseg", *arguments, cwd=tmp_path)
    assert "train" in run(environment / "medseg", "--help", cwd=tmp_path), "the agents' commands"
    assert run(environment / "medseg", "--version", cwd=tmp_path) == "medseg-gym 0.1.0\n"
    code = "import agents, medseg_gym, medseg_agents; print(agents.OWNER, medseg_gym.__file__)"
    owner, file = run(environment / "python", "-c", code, cwd=tmp_path).split()
    assert owner == "openai-agents"
    assert Path(file).is_relative_to(environment.parent)
