"""A comparison over two hosts: its program is killed, then one of the hosts is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions

from ..two_hosts import two_hosts, why_not

POLICIES = ("random", "oracle-box-click")
OPTIONS = CompareOptions(
    cases="phantoms:abdomen", backbones=("ellipse",), policies=POLICIES, num_envs=2, limit=240
)


def records(out: Path) -> dict[str, list[dict]]:
    """Records by file without their times; half a line at the end is not one yet."""
    played = {}
    for file in sorted(out.glob("records/*.jsonl")):
        lines = file.read_text().split("\n")[1:-1]
        rows = [{**json.loads(line), "seconds": 0} for line in lines]
        played[file.name] = sorted(rows, key=lambda row: row["case"])
    return played


def count(out: Path) -> int:
    return sum(map(len, records(out).values()))


@pytest.mark.slow
def test_a_comparison_survives_its_program_and_the_loss_of_a_host(tmp_path):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    out, log = tmp_path / "out", tmp_path / "log"
    words = [
        *(sys.executable, "-m", "medseg_gym.cli.main", "compare", "--cases", OPTIONS.cases),
        *("--policies", ",".join(POLICIES), "--backbones", "ellipse", "--limit", "240"),
        *("--num-envs", "2", "--ray", "--out", str(out)),
    ]
    with two_hosts() as hosts, log.open("wb") as file:

        def start() -> subprocess.Popen[bytes]:
            return hosts.command(0, *words, stdout=file, stderr=subprocess.STDOUT)

        def wait(run: subprocess.Popen[bytes], wanted: int) -> None:
            """Until so many records are there and an actor is at work on each host."""
            end = time.monotonic() + 180
            while time.monotonic() < end and run.poll() is None:
                at_work = [
                    any("CaseActor" in command for command in hosts.processes(number).values())
                    for number in (0, 1)
                ]
                if count(out) >= wanted and all(at_work):
                    return
                time.sleep(0.05)
            pytest.fail(f"{run.poll()}: {log.read_text()[-3000:]}\n{hosts.logs()}")

        first = start()
        wait(first, 12)
        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = records(out)
        again = start()
        wait(again, count(out) + 12)
        hosts.lose(1)
        assert again.poll() is None and count(out) < 480
        again.wait(timeout=240)
        assert again.returncode == 0, log.read_text()[-3000:]
    whole = compare([policies.make(name) for name in POLICIES], OPTIONS, tmp_path / "whole")
    assert records(out) == records(tmp_path / "whole")
    for name, rows in kept.items():  # nothing was played twice
        lines = (out / "records" / name).read_text().splitlines()[1:]
        assert len(lines) == 240 and all(row in records(out)[name] for row in rows)
    results = json.loads((out / "results.json").read_text())
    assert results["failed"] == [] and len(whole.rows) == len(results["rows"])
