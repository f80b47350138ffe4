"""Own files and modules reach hosts that do not have them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys

import pytest

from medseg_gym.errors import MedSegError
from medseg_gym.object_paths import absolute_files
from medseg_gym.parallel import own_sources
from medseg_gym.parallel.own_sources import read_sources

FILES = {
    "bright.py": "from near import LEVEL\nfrom my_pkg.inner import NAME\n",
    "near.py": "LEVEL = 3\n",
    "my_pkg/inner.py": "NAME = 'inner'\n",
    "data/scan.txt": "no source",
    "data/deep/lost.py": "",
    ".venv/lib.py": "",
}
THERE = """
import pickle, sys
sys.path.remove("")  # as workers have it
from pathlib import Path
from medseg_gym.object_paths import load_own
from medseg_gym.parallel.own_sources import use_sources
sources, here, names = pickle.load(sys.stdin.buffer)
copies = use_sources(sources, Path(here))
print(len(copies), [load_own(name) for name in names], Path.cwd())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        *("./bright.py:Bright?level=3", "bright:Bright", "my_pkg.inner:X"),
        "phantoms?position=random&initial_mask=./bright.py:begun?share=0.3",
        "phantoms?initial_mask=.%2Fbright.py%3Abegun",
        "folder:DATA?initial_mask=my_pkg.inner:begun",
        "folder:DATA?initial_mask=bright%3Abegun",
    ],
)
def test_sources_are_those_of_the_folder(folder, text):
    (files,) = read_sources(["phantoms:chest", text, "sb3:runs/one"]).values()
    assert set(files) == {"bright.py", "near.py", "my_pkg/inner.py"}


def test_specs_without_own_things_send_nothing(folder):
    assert read_sources(["nifti:DATA/x?window=lung", "openai:gpt", "hybrid:tau=0.02"]) == {}


@pytest.mark.parametrize("there", ["same", "other", "none"])
def test_a_host_uses_its_files_or_copies(folder, there, tmp_path):
    """In another process, whose disk has the same folder, one with other files, or none."""
    names = ["./bright.py:LEVEL", f"{folder}/bright.py:NAME", "my_pkg.inner:NAME", "near:LEVEL"]
    message = pickle.dumps((read_sources(names), str(folder), names))
    if there == "none":
        shutil.rmtree(folder)
    if there == "other":
        (folder / "near.py").write_text("LEVEL = 4\n")
    done = subprocess.run(
        [sys.executable, "-c", THERE], input=message, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()
    copies = 0 if there == "same" else 1
    place = tmp_path if there == "none" else folder
    assert done.stdout.decode().strip() == f"{copies} [3, 'inner', 'inner', 3] {place}"


def test_processes_elsewhere_get_absolute_files(folder):
    for spec in (
        "samples?initial_mask=bright.py:begun",
        "samples?initial_mask=.%2Fbright.py%3Abegun",
    ):
        assert f"?initial_mask={folder}/bright.py" in absolute_files(spec)


def test_too_much_is_refused(folder, monkeypatch):
    monkeypatch.setattr(own_sources, "_MOST_BYTES", 20)
    with pytest.raises(MedSegError, match="too many to be sent to a cluster"):
        read_sources(["./bright.py:Bright"])
