"""`medseg play`: the page with policies of this package, as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

pytestmark = pytest.mark.slow


def test_a_policy_by_name_plays_beside_people(tmp_path) -> None:
    command = [sys.executable, "-m", "medseg_gym.cli.main", "play", "--no-browser", "--port", "0"]
    command += ["--backbone", "ellipse", "--device", "cpu", "--cases", "phantoms:abdomen"]
    command += ["--policy", "location-prior:phantoms:abdomen", "--steps", "3"]
    command += ["--record", str(tmp_path / "play")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        result = re.search(r"http://\S+", process.stdout.readline())
        assert result is not None
        with httpx.Client(base_url=result[0], timeout=60, trust_env=False) as client:
            setup = client.get("/api/setup").json()["images"]
            policy = setup["policies"][0]
            assert policy.startswith("location-prior") and setup["max_steps"] == 3
            assert "oracle-box" in setup["policies"]
            (case,) = client.get("/api/cases", params={"place": "c2", "count": 1}).json()["cases"]
            body = {"policy": policy, "place": "c2", "key": case["key"]}
            shown = client.post("/api/watch", json=body).json()
            while not shown["done"]:
                time.sleep(0.05)
                shown = client.get(f"/api/watch/{shown['watch']}").json()
        assert shown["error"] == "" and shown["steps"][0]["tool"] == "box"
        assert shown["oracle"] is False
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert list((tmp_path / "play" / "policies").glob("*.parquet"))
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_what_cannot_be_is_refused(tmp_path) -> None:
    command = [sys.executable, "-m", "medseg_gym.cli.main", "play", "--no-browser"]
    command += ["--backbone", "ellipse", "--cases", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and "unknown case spec" in done.stderr
