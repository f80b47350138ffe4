import subprocess
import sys

import pytest


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


IDS = ("MedSeg-v0", "MedSegChat-v0", "MedSegVolume-v0", "MedSegVolumeChat-v0")


def test_importing_the_package_imports_no_torch():
    run_python(
        "import sys, medseg_gym;"
        "assert not {'torch', 'gymnasium', 'numpy'} & set(sys.modules);"
        "import medseg_gym.cases, medseg_gym.prompts;"
        "assert 'torch' not in sys.modules, 'torch was imported';"
        f"import gymnasium; assert not set({IDS}) - set(gymnasium.registry)"
    )


@pytest.mark.parametrize(
    "imports",
    [
        "import medseg_gym, gymnasium",
        "import gymnasium, medseg_gym",
        "import medseg_gym, gymnasium.spaces",
        "import medseg_gym; from gymnasium.envs.registration import registry",
        "import medseg_gym.cases; import gymnasium",
    ],
)
def test_ids_are_registered_whatever_is_imported_first(imports):
    run_python(
        f"{imports}\nimport sys, importlib.machinery\nfrom gymnasium.envs import registration\n"
        f"assert not set({IDS}) - set(registration.registry)\n"
        "assert type(registration.__loader__) is importlib.machinery.SourceFileLoader\n"
        "assert not [f for f in sys.meta_path if type(f).__name__ == '_AfterGymnasium']"
    )


def test_the_first_step_needs_neither_torchvision_nor_scipy():
    run_python(
        "import sys, medseg_gym, gymnasium as gym\n"
        "env = gym.make('MedSeg-v0'); env.reset(seed=0); env.step([0, 300, 300, 700, 700])\n"
        "slow = {'torchvision', 'torch._dynamo', 'scipy', 'skimage', 'matplotlib', 'sympy'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "import segment_anything\n"
        "assert 'torchvision' not in sys.modules\n"
        "from medseg_gym.backbones.families.sam.modeling import Sam\n"
        "assert segment_anything.modeling.Sam is Sam and segment_anything.sam_model_registry\n"
        "from segment_anything import SamPredictor\n"
        "assert 'torchvision' in sys.modules"
    )


def test_importing_twice_is_harmless():
    run_python(
        "import importlib, medseg_gym; importlib.reload(medseg_gym);"
        "import gymnasium; assert 'MedSeg-v0' in gymnasium.registry"
    )


def test_an_id_with_its_module_needs_no_import():
    out = run_python(
        "import gymnasium as gym;"
        "env = gym.make('medseg_gym:MedSeg-v0', backbone='ellipse');"
        "print(env.reset(seed=0)[1]['dice']);"
        "import sys; assert 'torchvision' not in sys.modules, 'needed by none but SAMs, and slow'"
    )
    assert out.strip() == "0.0"
