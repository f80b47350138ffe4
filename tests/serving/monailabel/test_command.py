"""`medseg serve --monailabel`: its options, and policies by spec."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from medseg_gym.cli.monailabel import MonaiLabelSwitches, check_switches, make_extension
from medseg_gym.cli.monailabel.policy_specs import read_policy, use_maker
from medseg_gym.errors import MedSegError, PolicyError


@pytest.mark.parametrize(
    ("options", "ray", "words"),
    [
        ({"policy": ("stop",)}, False, "--policy: give --monailabel too"),
        ({"label": ("a",), "window": "soft"}, False, "--label, --window: give"),
        ({"monailabel": True}, True, "does not go with --ray"),
    ],
)
def test_options_that_would_do_nothing(options, ray, words) -> None:
    with pytest.raises(MedSegError, match=words):
        check_switches(MonaiLabelSwitches(**options), ray)


def test_policies_of_other_packages_are_read_by_them(monkeypatch) -> None:
    from medseg_gym.cli.monailabel import policy_specs

    monkeypatch.setattr(policy_specs, "_makers", [])
    assert read_policy("middle-box").env_id == "MedSegVolume-v0"
    assert read_policy("centre-box").env_id == "MedSeg-v0"
    with pytest.raises(PolicyError):
        read_policy("sb3:runs/none")
    use_maker("medseg_agents.policies:make")
    use_maker("medseg_agents.policies:make")
    assert read_policy("volume:stop").name == "volume:stop"
    with pytest.raises(PolicyError, match="middle-bax"):
        read_policy("middle-bax")
    with pytest.raises(MedSegError, match="no such folder"):
        make_extension(MonaiLabelSwitches(monailabel=True, studies=Path("nowhere")))


@pytest.mark.slow
def test_the_command_serves(studies, tmp_path) -> None:
    command = [sys.executable, "-c", "from medseg_gym.cli.main import main; main()", "serve"]
    options = ["--port", "0", "--no-page", "--backbone", "ellipse", "--device", "cpu"]
    own = ["--monailabel", "--studies", str(studies), "--label", "liver", "--policy", "middle-box"]
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *options, *own], stdout=log, stderr=log, cwd=tmp_path, env=os.environ
        )
    try:
        deadline = time.monotonic() + 60
        while not (url := re.search(r"http://[\d.:]+", (tmp_path / "log").read_text("utf-8"))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        info = httpx.get(f"{url[0]}/info/", timeout=30, trust_env=False).json()
        assert set(info["models"]) == {"ellipse", "ellipse_2d", "middle-box"}
        assert info["labels"] == ["liver"] and info["datastore"]["total"] == 2
    finally:
        process.terminate()
        process.wait(40)
