"""Dockerfiles by hadolint, the cluster by Ray's own schema, release notes from the changelog."""

import shutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "deploy").glob("*.Dockerfile")), ids=lambda f: f.name
)
def test_hadolint_finds_nothing(file):
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "--no-color", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "file", sorted((ROOT / "deploy").glob("*.Dockerfile")), ids=lambda f: f.name
)
def test_extras_of_an_image_exist(file):
    extras = metadata("medseg-gym").get_all("Provides-Extra")
    (line,) = (line for line in file.read_text().splitlines() if line.startswith("ARG EXTRAS="))
    assert set(line.partition("=")[2].split(",")) <= set(extras)


def test_ray_reads_the_cluster_file():
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = yaml.safe_load((ROOT / "deploy" / "ray_cluster.yaml").read_text(encoding="utf-8"))
    util.validate_config(util.prepare_config(config))


def release_notes(version):
    return subprocess.run(
        [sys.executable, "-m", "scripts.release_notes", version],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_release_notes_are_a_version_of_the_changelog():
    done = release_notes("0.1.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("First version:") and "## [" not in done.stdout
    assert "### Added" in release_notes("Unreleased").stdout
    done = release_notes("9.9")
    assert done.returncode == 1 and "0.1.0" in done.stderr


def test_the_citation_has_the_version():
    import medseg_gym

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == medseg_gym.__version__
