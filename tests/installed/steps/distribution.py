"""The files that are published: wheel and sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile

from workplace import ROOT, Workplace

from steps.step import step

MEGABYTE = 1_000_000


@step("wheel and sdist: twine check, check-wheel-contents")
def check_files(place: Workplace) -> None:
    tool = (sys.executable, "-m")
    subprocess.run([*tool, "twine", "check", "--strict", place.sdist, place.wheel], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    subprocess.run([*tool, "check_wheel_contents", "--toplevel",
                    "medseg_gym,medseg_agents,medseg_chat", place.wheel],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip


@step("wheel: two packages and verifiers' plugin, all their data, pocket's weights of at most 9 MB")
def check_wheel(place: Workplace) -> None:
    with zipfile.ZipFile(place.wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    top = {name.partition("/")[0] for name in sizes}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == {"medseg_gym", "medseg_agents", "medseg_chat"}, packages
    agents = ROOT / "agents"
    for folder in (ROOT / "medseg_gym", agents / "medseg_agents", agents / "medseg_chat"):
        for file in folder.rglob("*"):
            name = file.relative_to(folder.parent).as_posix()
            if file.is_file() and "__pycache__" not in name:
                assert name in sizes, f"{name} is not in the wheel"
    weights = sum(size for name, size in sizes.items() if "families/pocket/weights" in name)
    assert 0 < weights <= 9 * MEGABYTE, weights


@step("sdist: what builds and tests need, nothing heavy")
def check_sdist(place: Workplace) -> None:
    with tarfile.open(place.sdist) as archive:
        sizes = {member.name.partition("/")[2]: member.size for member in archive.getmembers()}
    for folder in ("tests", "docs", "examples", "benchmarks", "scripts", "configs"):
        assert any(name.startswith(f"{folder}/") for name in sizes), f"{folder} is missing"
    for name in ("pyproject.toml", "CHANGELOG.md", "mkdocs.yml", "Makefile", ".ci/run"):
        assert name in sizes, f"{name} is missing"
    heavy = {name: size for name, size in sizes.items() if size > 9 * MEGABYTE}
    assert not heavy and place.sdist.stat().st_size < 25 * MEGABYTE, heavy
