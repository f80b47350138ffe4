"""Processes that work for a benchmark, and end when it is killed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait

from medseg_gym.errors import MedSegError


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that begin anew and may have children of their own (loaders are some).

    Args:
        workers: How many.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def read_line(player: subprocess.Popen[str]) -> str:
    """Read the next line of a process that answers by lines, without its end.

    Raises:
        MedSegError: It has ended.
    """
    assert player.stdout is not None
    line = player.stdout.readline()
    if not line:
        raise MedSegError("a player ended before it had played; its error stands above")
    return line.strip()


def _end_with_parent() -> None:
    # A killed parent tells nobody: a worker would train to its end, beside the one that the same
    # command starts when it is given again.
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
