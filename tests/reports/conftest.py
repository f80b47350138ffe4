"""Lets these tests import the rows beside them, and gives each an index of its own."""

import sys
from pathlib import Path

import pytest

# Rows are parameters of a test, so they are needed before there are fixtures, and pytest's
# importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The persistent index of a test lies in its temporary folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
