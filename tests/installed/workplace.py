"""The distribution, a fresh environment and an empty folder, and commands that see nothing else."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MEDSEG_CHECKPOINTS")
EXTRAS = "sb3,trajectories"
"""Extras of an environment that is made from nothing; they are what the steps use."""


@dataclass(frozen=True)
class Workplace:
    """The place of a user: an environment with the wheel, and a folder of his own."""

    sdist: Path
    wheel: Path
    environment: Path
    folder: Path

    def program(self, name: str) -> Path:
        """Path of a program of the environment."""
        return self.environment / ("Scripts" if os.name == "nt" else "bin") / name

    def call(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the user's folder.

        Raises:
            AssertionError: It ended with another code than `code`, or a traceback was shown.
        """
        command = [str(self.program(str(words[0]))), *map(str, words[1:])]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=surroundings(self.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=900,
        )
        told = f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, told
        assert "Traceback (most recent call last)" not in done.stderr, told
        return done

    def medseg(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `medseg WORDS`."""
        return self.call("medseg", *words, code=code)

    def python(self, text: str) -> str:
        """Standard output of a program of the user's."""
        return self.call("python", "-c", text).stdout


def surroundings(folder: Path) -> dict[str, str]:
    """Environment variables that tell nothing of this checkout, with a cache of their own."""
    kept = {key: value for key, value in os.environ.items() if key not in HIDDEN}
    return {
        **kept,
        "COLUMNS": "120",
        "PYTHONIOENCODING": "utf-8",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "XDG_CACHE_HOME": str(folder / ".cache"),
    }


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=surroundings(cwd),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist of the checkout's files, and the wheel of the sdist alone."""
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    source, out = folder / "source", folder / "dist"
    for name in run(*listed, cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out.mkdir()
    make = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    run(sys.executable, "-c", make, cwd=source)
    (sdist,) = out.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "--no-index", "-w", out, sdist, cwd=folder)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def neighbour(folder: Path) -> Path:
    """Make the package called `agents` of another distribution; return its folder."""
    package = folder / "neighbour" / "agents"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("OWNER = 'somebody else'\n", encoding="utf-8")
    return package.parent


def prepare(folder: Path, from_nothing: bool, python: str = sys.executable) -> Workplace:
    """Build, make the environment and the user's folder.

    Args:
        folder: Empty.
        from_nothing: Install all dependencies. Otherwise they are those of the running environment:
            its folders of packages come behind the new environment's own, and what stands in `.pth`
            files there, as an editable install of the checkout, is not read.
        python: Interpreter of an environment from nothing.
    """
    sdist, wheel = build(folder)
    place = Workplace(sdist, wheel, folder / "environment", folder / "user")
    shutil.copytree(Path(__file__).with_name("user_files"), place.folder)
    shutil.rmtree(place.folder / "my_pkg" / "__pycache__", ignore_errors=True)
    # The same policy in a file and in a package: each is named on its own.
    shutil.copy(place.folder / "bright.py", place.folder / "my_pkg" / "policies.py")
    if from_nothing:
        run(python, "-m", "venv", place.environment, cwd=folder)
        pip = (place.program("python"), "-m", "pip", "install", "-q")
        run(*pip, f"medseg-gym[{EXTRAS}] @ {wheel.as_uri()}", cwd=folder)
    else:
        run(sys.executable, "-m", "venv", "--without-pip", place.environment, cwd=folder)
        pip = (sys.executable, "-m", "pip", "--python", place.program("python"), "install", "-q")
        run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(place.program("python"), "-c", where, cwd=folder).strip())
    lines = [str(neighbour(folder)), *([] if from_nothing else site.getsitepackages())]
    (packages / "behind_the_wheel.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place
