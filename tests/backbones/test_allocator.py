from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from medseg_gym.backbones.allocator import give_back_freed_memory, keep_freed_memory

def resident():
    pages = open("/proc/self/statm").read().split()[1]
    return int(pages) * 4096 >> 20

assert not give_back_freed_memory()  # nothing is kept yet
assert keep_freed_memory()
blocks = [np.ones(1 << 20, np.uint8) for _ in range(200)]
wall = np.ones(1 << 10, np.uint8)  # above them in the heap
del blocks
kept = resident()
assert give_back_freed_memory()
print(kept - resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is told")
def test_kept_memory_can_be_given_back(monkeypatch) -> None:
    monkeypatch.delenv("MEDSEG_KEEP_MALLOC", raising=False)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150  # of 200 MiB
