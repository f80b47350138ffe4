"""Public names are there, and importing the package costs next to nothing."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import medseg_gym

ROOT = Path(medseg_gym.__file__).parent

IMPORT = """
import sys, time
import gymnasium
before, began = set(sys.modules), time.process_time()
import medseg_gym
seconds = time.process_time() - began
import json
print(json.dumps([sorted(set(sys.modules) - before), seconds]))
"""


@pytest.fixture(scope="module")
def fresh_import() -> tuple[set[str], float]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, timeout=120
    )
    names, seconds = json.loads(done.stdout)
    return set(names), seconds


def test_importing_the_package_imports_nothing_heavy(fresh_import):
    names, _ = fresh_import
    assert {name for name in names if name.startswith("medseg_")} == {
        "medseg_gym",
        "medseg_gym.registration",
    }
    heavy = {"torch", "scipy", "skimage", "PIL", "matplotlib", "pandas", "ray", "transformers"}
    assert not heavy & {name.partition(".")[0] for name in names}


def test_importing_the_package_takes_no_time_of_the_processor(fresh_import):
    assert fresh_import[1] < 0.2


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("medseg_gym", {"Case", "CaseSource", "load_cases", "check_vector_env"}),
        (
            "medseg_gym.envs",
            {"MedSegEnv", "MedSegVectorEnv", "MedSegChatEnv", "MedSegChatVectorEnv"},
        ),
    ],
)
def test_what_users_need_is_exported(package, names):
    module = importlib.import_module(package)
    assert names <= set(module.__all__) and names <= set(dir(module))
    assert all(callable(getattr(module, name)) for name in names)
    with pytest.raises(AttributeError, match="NoSuchName"):
        module.NoSuchName  # noqa: B018


@pytest.mark.parametrize(
    "stub", [ROOT / "__init__.pyi", ROOT / "envs/__init__.pyi", ROOT / "trajectories/__init__.pyi"]
)
def test_every_name_in_a_stub_exists(stub):
    package = ".".join(("medseg_gym", *stub.parent.relative_to(ROOT).parts))
    module = importlib.import_module(package)
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.name == alias.asname and getattr(module, alias.name) is not None
