"""Every hint "pip install medseg-gym[EXTRA]" names an extra that brings what is missing there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_gym.backbones import available

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
HINT = re.compile(r"medseg-gym\[([^\]]*)\]")
FOLDERS = ("medseg_gym", "agents", "benchmarks", "deploy", "docs", "examples", "scripts")
FILES = [ROOT / "README.md"] + [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".yaml", ".js", ".html", ".toml", ".cfg")
    or path.suffix == ".Dockerfile"
]
# What a file's hint is about: modules that it (or what it opens) imports, as packages call them.
NEEDS = {
    "examples/grpo_tiny.py": {"rllib": {"ray"}, "llm": {"transformers", "peft"}},
    "examples/train_with_sb3.py": {"sb3": {"stable-baselines3"}},
    "agents/medseg_agents/runs/trackers/wandb.py": {"wandb": {"wandb"}},
    "agents/medseg_agents/runs/trackers/mlflow.py": {"mlflow": {"mlflow"}},
    "medseg_gym/cases/image_files/one_image.py": {"data": {"pydicom"}},
    "agents/medseg_agents/openenv/__init__.py": {"openenv": {"openenv"}},
    "agents/medseg_agents/verifiers/__init__.py": {"verifiers": {"verifiers"}},
    "agents/medseg_agents/commands/page.py": {"serve": {"fastapi", "uvicorn", "pyarrow"}},
    "medseg_gym/cases/volumes/itk_file.py": {"data": {"simpleitk"}},
    "medseg_gym/cases/volumes/requirements.py": {"data": {"nibabel", "pydicom", "simpleitk"}},
    "medseg_gym/cases/dicom/facts.py": {"data": {"pydicom", "pylibjpeg", "python-gdcm"}},
    "medseg_gym/cases/image_files/jpeg2000.py": {"data": {"pylibjpeg-openjpeg"}},
    "medseg_gym/cases/wsi/slides.py": {"wsi": {"openslide-python", "openslide-bin"}},
    "medseg_gym/cases/parquet/arrow.py": {"data": {"pyarrow"}},
    "medseg_gym/backbones/families/imisnet/model.py": {"imisnet": {"transformers"}},
    "medseg_gym/backbones/families/imisnet/backbone.py": {"imisnet": {"timm"}},
    "medseg_gym/backbones/families/sam2/backbone.py": {"sam2": {"sam2"}},
    "medseg_gym/trajectories/store/arrow.py": {"trajectories": {"pyarrow"}},
}


def packages(extra: str) -> set[str]:
    """Names of what an extra brings, extras within it included."""
    result = set()
    for text in EXTRAS[extra]:
        name, _, inner = re.match(r"([\w.-]+)(\[([^\]]*)\])?", text).groups()  # type: ignore[union-attr]
        if name == "medseg-gym":
            for one in inner.split(","):
                result |= packages(one)
        result.add(name.lower())
    return result


def hints() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), extra.strip())
        for path in FILES
        for inner in HINT.findall(path.read_text(encoding="utf-8"))
        if not set("{$") & set(inner)  # made at run time
        for extra in inner.split(",")
    ]


def test_hints_name_extras_that_there_are() -> None:
    result = hints()
    assert len(result) > 12
    assert {extra for _, extra in result} <= set(EXTRAS)


def test_a_hint_brings_what_is_missing_there() -> None:
    for path, extra in hints():
        if not path.endswith(".py"):
            continue
        assert extra in NEEDS.get(path, {}), f"{path}: say in NEEDS what [{extra}] is for"
        assert NEEDS[path][extra] <= packages(extra), path


def test_hints_that_are_made_at_run_time_name_extras() -> None:
    from medseg_gym.backbones.registry import BACKBONES
    from medseg_gym.cli.extras import extras_with

    for spec in available().values():
        assert BACKBONES.knows(spec.name)
        if spec.extra:
            assert spec.extra[0] in EXTRAS
    for module in ("ray", "fastapi", "pyarrow", "trl", "stable_baselines3", "SimpleITK", "uvicorn"):
        for extra in extras_with(module):
            assert extra in EXTRAS and module.lower().replace("_", "-") in packages(extra)
        assert extras_with(module)


def test_hints_are_quoted_for_the_shell() -> None:
    """zsh and others take [ and ] for a pattern of file names."""
    bare = re.compile(r"install[^\n`]*[^\"'`\w/]medseg-gym\[")
    wrong = [str(path) for path in FILES if bare.search(path.read_text(encoding="utf-8"))]
    assert not wrong, wrong


def test_training_with_sb3_needs_nothing_of_other_extras() -> None:
    others = set().union(*map(packages, EXTRAS)) - packages("sb3")
    missing = {name.replace("-", "_") for name in others} - {"medseg_gym"}
    program = (
        "import sys\n"
        f"sys.modules |= dict.fromkeys({sorted(missing)})\n"
        "import medseg_agents.arrays.sb3.train, medseg_agents.policies.sb3_policy\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
