"""Every Python example in the README and in docs/ runs as it stands."""

import re
from pathlib import Path

import pytest

from medseg_gym.backbones import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text()), start=1)
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_runs(code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with registry.BACKBONES.temporarily():
        exec(compile(code, "example", "exec"), {"__name__": "__main__"})


def test_the_examples_of_extending_are_short():
    for code in BLOCK.findall((ROOT / "docs" / "extend.md").read_text()):
        assert len([line for line in code.splitlines() if line.strip()]) <= 15, code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
