"""Every Python example in the README and in docs/ runs as it stands; every link leads somewhere."""

import re
import sys
from pathlib import Path

import pytest

from medseg_gym.backbones import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def example(page: Path, number: int, code: str):
    starts_ray = "build_algo()\n" in code or "build_algo()  #" in code
    marks = [pytest.mark.xdist_group("ray")] if starts_ray else []
    return pytest.param(code, id=f"{name_of(page)}-{number}", marks=marks)


EXAMPLES = [
    example(page, number, code)
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text()), start=1)
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_runs(code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    try:
        with registry.BACKBONES.temporarily():
            exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    finally:
        if "ray" in sys.modules and hasattr(sys.modules["ray"], "shutdown"):
            sys.modules["ray"].shutdown()  # what comes next starts its own


def test_the_examples_of_extending_are_short():
    for code in BLOCK.findall((ROOT / "docs" / "how-to" / "extend.md").read_text()):
        assert len([line for line in code.splitlines() if line.strip()]) <= 15, code


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as mkdocs and GitHub make them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M
    )
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s+", "-", word) for word in words}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), target
        if anchor:
            assert anchor in anchors(aim), target
        if page.is_relative_to(ROOT / "docs"):  # mkdocs knows nothing outside of it
            assert aim.is_relative_to(ROOT / "docs"), target


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text() + (
        ROOT / "scripts/docs/generated_pages.py"
    ).read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900
