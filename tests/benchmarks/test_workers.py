"""Workers of a benchmark do not outlive it."""

import subprocess
import sys
from pathlib import Path

import psutil

PROGRAM = """
import os, time
from benchmarks.shared.workers import worker_pool

def number(wait):
    time.sleep(wait)
    return os.getpid()

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(number, 0).result(), flush=True)
        pool.submit(number, 600).result()
"""


def test_a_killed_program_leaves_no_worker(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, env=environment, text=True
    ) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running() and worker.parent().pid == parent.pid
        parent.kill()
    _, alive = psutil.wait_procs([worker], timeout=20)
    assert not alive
