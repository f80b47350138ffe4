import subprocess
import sys


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_imports_no_torch():
    run_python(
        "import sys, medseg_gym, medseg_gym.cases, medseg_gym.prompts;"
        "assert 'torch' not in sys.modules, 'torch was imported';"
        "import gymnasium; assert 'MedSeg-v0' in gymnasium.registry"
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
