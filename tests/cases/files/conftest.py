"""Lets these tests import the corpus of defects beside them, and gives each an index of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Defects are parameters of a test, so they are needed before there are fixtures, and pytest's
# importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))


from defect_corpus.biomedparse_defects import write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three training cases and a test case without defects."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The persistent index of a test lies in its temporary folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medseg_gym" / "index"
