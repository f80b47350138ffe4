"""The installed packages work by themselves: imports, doctor, demo, environments."""

from __future__ import annotations

import json
from pathlib import Path

from workplace import ROOT, Workplace

from steps.step import step

WEIGHTS = b"weights"


@step("both packages are imported from the new environment, beside another one called agents")
def check_imports(place: Workplace) -> None:
    code = (
        "import agents, medseg_agents, medseg_gym, importlib.metadata as m\n"
        "print(agents.OWNER, medseg_gym.__version__, m.version('medseg-gym'), sep='\\n')\n"
        "print(medseg_gym.__file__, medseg_agents.__file__, sep='\\n')"
    )
    owner, version, distribution, *files = place.python(code).splitlines()
    assert owner == "somebody else" and version == distribution
    for file in files:
        assert Path(file).is_relative_to(place.environment), file
        assert not Path(file).is_relative_to(ROOT), file
    assert place.medseg("--version").stdout == f"medseg-gym {version}\n"
    assert place.call("medseg-gym", "--version").stdout == f"medseg-gym {version}\n"
    assert "train" in place.medseg("--help").stdout, "the agents' commands"


@step("medseg doctor: versions, devices, extras, caches with sizes, weight files, a self test")
def check_doctor(place: Workplace) -> None:
    weights = _put_weights(place)
    told = json.loads(place.medseg("doctor", "--json").stdout)
    versions = told["versions"]
    ask = "import platform, medseg_gym as m; print(m.__version__, platform.python_version())"
    assert [versions["medseg-gym"], versions["python"]] == place.python(ask).split(), versions
    assert versions["torch"] and versions["gymnasium"] and versions["stable-baselines3"], versions
    assert told["devices"][0]["device"] == "cpu", told["devices"]
    assert told["threads"]["usable_cores"] >= 1 and told["threads"]["torch_threads"] >= 1
    extras = told["extras"]
    assert {"sb3", "rllib", "llm", "serve", "wandb", "mlflow"} <= set(extras), extras
    assert extras["sb3"] == extras["trajectories"] == {"missing": [], "install": None}, extras
    for name, extra in extras.items():
        line = f'pip install "medseg-gym[{name}]"' if extra["missing"] else None
        assert extra["install"] == line, (name, extra)
    caches = {one["folder"]: one for one in told["caches"]}
    assert caches[str(weights.parent)]["files"] == 1, caches
    assert caches[str(weights.parent)]["bytes"] == len(WEIGHTS), caches
    assert told["checkpoints"]["medsam2"] == str(weights), told["checkpoints"]
    assert told["checkpoints"]["imisnet"] is None, told["checkpoints"]
    test = told["self_test"]
    assert test["ok"] and test["dice"] > 0.5 and "pocket" in test["message"], test
    shown = place.medseg("doctor", "--no-self-test").stdout
    for words in ("versions", "devices", "extras", "caches", "weight files", str(weights.parent)):
        assert words in shown.replace("\n", ""), (words, shown)
    failed = json.loads(place.medseg("doctor", "--backbone", "medsam", "--json", code=1).stdout)
    assert not failed["self_test"]["ok"] and "medsam2" in failed["self_test"]["message"], failed
    weights.unlink()


def _put_weights(place: Workplace) -> Path:
    """Put a file where medsam2's weights are looked for; doctor only says where it is."""
    name = place.python(
        "from medseg_gym.storage.cache_folder import cache_folder\n"
        "from medseg_gym.backbones import available\n"
        "print(cache_folder('checkpoints') / available()['medsam2'].checkpoint)"
    )
    weights = Path(name.strip())
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(WEIGHTS)
    return weights


@step("medseg demo")
def check_demo(place: Workplace) -> None:
    place.medseg("demo", "--backbones", "ellipse", "--limit", 2, "--out", "out/demo")
    assert (place.folder / "out/demo/sheet.png").stat().st_size > 1000


@step("gymnasium: a time limit, the native batch, sync and async vectors")
def check_vectors(place: Workplace) -> None:
    assert len(place.call("python", "vectors.py").stdout.splitlines()) == 6
