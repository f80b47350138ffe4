"""`medseg play`: the page with policies of this package, as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

pytestmark = pytest.mark.slow


@contextmanager
def page(*arguments, cwd):
    """A client of `medseg play`, which is ended as a person does and must end well."""
    command = [sys.executable, "-m", "medseg_gym.cli.main", "play", "--no-browser", "--port", "0"]
    command += ["--backbone", "ellipse", "--device", "cpu", "--record", "play", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd)
    try:
        assert process.stdout is not None
        result = re.search(r"http://\S+", process.stdout.readline())
        assert result is not None
        with httpx.Client(base_url=result[0], timeout=60, trust_env=False) as client:
            yield client
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def watch(client, policy, place, key):
    """Watch a policy to the end of its episode."""
    body = {"policy": policy, "place": place, "key": key}
    shown = client.post("/api/watch", json=body).json()
    while not shown["done"]:
        time.sleep(0.05)
        shown = client.get(f"/api/watch/{shown['watch']}").json()
    return shown


def test_a_policy_by_name_plays_beside_people(tmp_path) -> None:
    arguments = ["--cases", "phantoms:abdomen", "--steps", "3"]
    policy = ["--policy", "location-prior:phantoms:abdomen"]
    with page(*arguments, *policy, cwd=tmp_path) as client:
        setup = client.get("/api/setup").json()["images"]
        policy = setup["policies"][0]
        assert policy.startswith("location-prior") and setup["max_steps"] == 3
        assert "oracle-box" in setup["policies"]
        (case,) = client.get("/api/cases", params={"place": "c2", "count": 1}).json()["cases"]
        shown = watch(client, policy, "c2", case["key"])
        assert shown["error"] == "" and shown["steps"][0]["tool"] == "box"
        assert shown["oracle"] is False
    assert list((tmp_path / "play" / "policies").glob("*.parquet"))


def test_own_policies_cases_and_reward_are_on_the_page(own_folder) -> None:
    words = ["--cases", "./cases.py:Squares", "--reward", "rewarding:final_iou?weight=2"]
    words += ["--policy", "./bright.py:Bright?threshold=130", "--policy", "failing:Act"]
    with page(*words, cwd=own_folder) as client:
        policies = client.get("/api/setup").json()["images"]["policies"]
        own, failing = policies[:2]
        assert "bright" in own.lower() and "Act" in failing, policies
        (case,) = client.get("/api/cases", params={"place": "c1", "count": 1}).json()["cases"]
        assert case["key"].startswith("square-")
        shown = watch(client, own, "c1", case["key"])
        assert shown["error"] == "" and [step["tool"] for step in shown["steps"]] == ["box", "stop"]
        last = shown["steps"][-1]
        assert last["dice"] > 0.8 and last["reward"] == pytest.approx(2 * last["iou"])
        error = watch(client, failing, "c1", case["key"])["error"]
        assert "ZeroDivisionError in divide, line 10 of failing.py" in error, error


def test_what_cannot_be_is_refused(tmp_path) -> None:
    command = [sys.executable, "-m", "medseg_gym.cli.main", "play", "--no-browser"]
    command += ["--backbone", "ellipse", "--cases", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and "unknown case spec" in done.stderr
