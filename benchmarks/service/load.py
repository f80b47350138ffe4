"""Load test of the segmentation service against a plain one-at-a-time server.

    python -m benchmarks.service.load

Starts `medseg serve` and `benchmarks.service.baseline` as processes of their own on this machine,
with the same weights and threads, and plays sessions against them in turns: baseline, service,
baseline, so that their ratio holds on a machine whose load changes. Traffic is that of
group-relative training: several sessions on one image, each with a box and clicks of its own.
Every mask is compared with the one that the backbone makes in this process. Images are
**synthetic** phantoms. Only 127.0.0.1 is ever asked.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.service.clients import LOOPBACK, Answers, Verdict, judge, play, write_scripts
from medseg_gym import backbones
from medseg_gym.cases import Case, CaseSource, load_cases
from medseg_gym.cli.main import run
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

FLOOR = 3.0
FLAT = 0.05


def measure(
    backbone: Annotated[str, typer.Option(help="As in `medseg backbones list`.")] = "pocket",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    clients: Annotated[int, typer.Option(help="At the same time.")] = 64,
    sessions: Annotated[int, typer.Option(help="Against the service, in all.")] = 1000,
    baseline_sessions: Annotated[int, typer.Option(help="Against the baseline, each time.")] = 64,
    group: Annotated[int, typer.Option(help="Sessions on one image.")] = 8,
    clicks: Annotated[int, typer.Option(help="After the box of a session.")] = 3,
    cache_mib: Annotated[int, typer.Option(help="Embedding cache, small enough to fill.")] = 64,
    out: Annotated[Path, typer.Option(help="For results.json.")] = Path("out/service_load"),
    check_floors: Annotated[bool, typer.Option(help="Fail below the promised results.")] = False,
) -> None:
    """Measure throughput, latencies, wrong masks and memory."""
    source = load_cases("phantoms", "test")
    cases = distinct_images(source, -(-sessions // group))
    scripts = write_scripts(cases, sessions, group, clicks)
    few = scripts[:baseline_sessions]
    machine = f"{describe_machine()}, load {os.getloadavg()[0]:.1f}"
    options = ["--backbone", backbone, "--device", device]
    server_options = ["--cache-bytes", str(cache_mib << 20), "--log-level", "warning"]
    plain_server = [sys.executable, "-m", "benchmarks.service.baseline", *options]
    service = [sys.executable, "-m", "medseg_gym.cli.main", "serve", *options, *server_options]
    with serving(plain_server) as plain_port, serving(service) as port:
        play(plain_port, few[: 2 * group], clients)  # both warm
        play(port, few[: 2 * group], clients)
        plain = [play(plain_port, few, clients)]
        with Memory(port) as memory:
            batched = play(port, scripts, clients)
        plain.append(play(plain_port, few, clients))
        counters = read_counters(port)
    local = backbones.load(backbone, device=device)
    verdicts = [judge(local, few, a) for a in plain], judge(local, scripts, batched)
    result = summarise(plain, batched, verdicts, memory, counters)
    result |= {"machine": machine, "clients": clients, "sessions": sessions, "group": group}
    report(result)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "results.json", json.dumps(result, indent=1))
    if check_floors and (broken := broken_floors(result)):
        raise MedSegError("; ".join(broken))


def distinct_images(source: CaseSource, count: int) -> list[Case]:
    """The first so many cases with a target, no two on the same image."""
    cases: dict[str, Case] = {}
    for i in range(len(source)):
        case = source[i]
        if case.mask.any():
            cases.setdefault(case.content_hash, case)
        if len(cases) == count:
            break
    return list(cases.values())


@contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """Run a server on a free port of 127.0.0.1 while the context lasts.

    Raises:
        MedSegError: It did not come up.
    """
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 300
            while not _healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise MedSegError(
                        f"{' '.join(command)} did not come up: {log.read()[-2000:].decode()}"
                    )
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def _healthy(port: int) -> bool:
    try:
        return "healthy" in _get(port, "/health")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def read_counters(port: int) -> dict[str, float]:
    """The service's own counters, by Prometheus name and labels."""
    lines = [line.rsplit(" ", 1) for line in _get(port, "/metrics").splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in lines}


class Memory:
    """Samples the service's resident memory, and how many sessions it has closed by then."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.samples: list[tuple[float, float]] = []  # sessions closed, bytes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        closed = 'medseg_sessions_closed_total{reason="deleted"}'
        while not self._over.wait(0.5):
            counters = read_counters(self.port)
            self.samples.append(
                (counters.get(closed, 0.0), counters["process_resident_memory_bytes"])
            )

    def between(self, low: float, high: float) -> float:
        """Median bytes while the share of sessions closed was within two bounds."""
        last = self.samples[-1][0]
        sizes = [size for done, size in self.samples if low * last <= done <= high * last]
        if not sizes:
            raise MedSegError("the run was too short to sample the service's memory; play more")
        return float(np.median(sizes))


def summarise(
    plain: list[Answers],
    batched: Answers,
    verdicts: tuple[list[Verdict], Verdict],
    memory: Memory,
    counters: dict[str, float],
) -> dict[str, Any]:
    """Everything in plain numbers."""
    plain_rate = sum(len(a.seconds) for a in plain) / sum(a.elapsed for a in plain)
    rows = counters['medseg_batch_rows_sum{kind="step"}']
    calls = counters['medseg_batch_rows_count{kind="step"}']
    before, after = memory.between(0.4, 0.6), memory.between(0.8, 1.0)
    together = Answers(seconds=[s for a in plain for s in a.seconds])
    return {
        "masks": len(batched.seconds),
        "rate": batched.rate,
        "plain_rates": [a.rate for a in plain],
        "plain_rate": plain_rate,
        "ratio": batched.rate / plain_rate,
        "ms": batched.percentiles(),
        "create_ms": [float(v) * 1000 for v in np.percentile(batched.create_seconds, [50, 95, 99])],
        "plain_ms": together.percentiles(),
        "verdict": vars(verdicts[1]),
        "plain_verdicts": [vars(v) for v in verdicts[0]],
        "failures": batched.failures,
        "plain_failures": [f for a in plain for f in a.failures],
        "rows_a_call": rows / calls,
        "encodes": counters["medseg_encodes_total"],
        "memory_mib": [before / 2**20, after / 2**20],
        "memory_growth": after / before - 1,
        "seconds": batched.elapsed,
    }


def report(result: dict[str, Any]) -> None:
    """Print tables."""
    console = make_console()
    table = Table(
        title=f"{result['clients']} clients, {result['sessions']} sessions, "
        f"{result['group']} on an image, synthetic images"
    )
    for header in ("server", "masks/s", "ratio", "p50 ms", "p95 ms", "p99 ms", "wrong", "failed"):
        table.add_column(header, justify="left" if header == "server" else "right")
    plain_wrong = sum(v["wrong"] for v in result["plain_verdicts"])
    for name, rate, ratio, ms, wrong, failures in (
        ("one at a time", result["plain_rate"], 1.0, result["plain_ms"], plain_wrong,
         result["plain_failures"]),
        ("medseg serve", result["rate"], result["ratio"], result["ms"],
         result["verdict"]["wrong"], result["failures"]),
    ):  # fmt: skip
        table.add_row(
            name, f"{rate:.1f}", f"{ratio:.2f}", *(f"{v:.0f}" for v in ms), str(wrong),
            str(len(failures)),
        )  # fmt: skip
    console.print(table)
    verdict = result["verdict"]
    console.print(
        f"masks: {result['masks']}, identical to the local ones {verdict['identical']}, different "
        f"only within 0.001 of zero {verdict['close']} (largest logit {verdict['worst']:.1e})"
    )
    console.print(
        f"rows a decoder call {result['rows_a_call']:.1f}, images encoded {result['encodes']:.0f}, "
        f"session create p50/p95/p99 {'/'.join(f'{v:.0f}' for v in result['create_ms'])} ms"
    )
    console.print(
        f"memory at 40-60 % and 80-100 % of the sessions: {result['memory_mib'][0]:.0f}, "
        f"{result['memory_mib'][1]:.0f} MiB ({result['memory_growth']:+.1%})"
    )
    console.print(
        f"baseline before and after: {', '.join(f'{r:.1f}' for r in result['plain_rates'])} "
        f"masks/s. Measured on: {result['machine']}"
    )


def broken_floors(result: dict[str, Any]) -> list[str]:
    """Return the floors that the results fall short of."""
    broken = []
    if result["ratio"] < FLOOR:
        broken.append(f"ratio {result['ratio']:.2f} is below {FLOOR}")
    if result["verdict"]["wrong"] or result["failures"]:
        broken.append(f"{result['verdict']['wrong']} wrong masks, {result['failures'][:3]}")
    if result["memory_growth"] > FLAT:
        broken.append(f"memory grew by {result['memory_growth']:.1%}")
    return broken


if __name__ == "__main__":
    run(measure)
