"""Every example in a docstring of the packages runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "medseg_gym", ROOT / "agents" / "medseg_agents")
MODULES = sorted(
    ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in package.rglob("*.py")
    if ">>> " in path.read_text()
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_the_public_ones_have_examples():
    wanted = ("envs.medseg", "envs.medseg_vector", "envs.chat", "cases.case", "cases.case_source")
    assert {f"medseg_gym.{name}" for name in wanted} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name, monkeypatch, tmp_path):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(module, optionflags=FLAGS, verbose=False)
    assert results.attempted > 0 and results.failed == 0
