"""Speed of indexing many small files and of reading cases.

    python -m benchmarks.data.case_indexing

Every format gets 10 000 small files (parquet: rows). "open" lists the cases and everything that
can be told without pixels; "check" reads every pixel once, which is what `medseg cases check` and
`skip_bad` do. Cold is without an index, warm is with it, each in a process of its own, whose
imports are not counted; the files themselves are in the system's memory, having just been written.
Reading is compared with the plain decoder of the format on the same files, turn about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.data.case_files import DECODERS, SPECS, WRITERS
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.storage.atomic_write import atomic_write

COLD_FLOOR, WARM_FLOOR, READING_FLOOR = 60.0, 2.0, 1.5

_INDEX = """
import json, re, sys, time
from medseg_gym.cases.files import FileData
from medseg_gym.cases.files.dataset_formats import read_file_spec
dataset_format, spec = read_file_spec(sys.argv[1])
began, spent = time.perf_counter(), time.process_time()
data = FileData(dataset_format(spec))
if sys.argv[2] == "check":
    data.examine()
status = open("/proc/self/status").read()
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "cpu_seconds": time.process_time() - spent,
    "cases": len(data.records),
    "defects": [str(defect) for defect in data.bad][:3],
    "megabytes": int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024,
}))
"""


def time_index(spec: str, level: str, cache: Path) -> dict[str, Any]:
    """Index in a process of its own.

    Args:
        spec: Case spec.
        level: "open" or "check".
        cache: Folder for the index.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", _INDEX, spec, level]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    timing: dict[str, Any] = json.loads(done.stdout)
    return timing


def time_indexing(root: Path, name: str, files: int, side: int) -> dict[str, Any]:
    """Write a data set, index it cold and warm at both levels."""
    data = root / f"{name}-many"
    written = WRITERS[name](data, files, side)
    time.sleep(0.2)  # until the index trusts the files' times
    spec = SPECS[name].format(root=data)
    row: dict[str, Any] = {"format": name, "files": written}
    for level in ("open", "check"):
        cache = root / f"cache-{name}-{level}"
        cold = time_index(spec, level, cache)
        warm = [time_index(spec, level, cache) for _ in range(3)]
        row[f"{level}_cold"] = cold["seconds"]
        row[f"{level}_warm"] = median(timing["seconds"] for timing in warm)
        row |= {"cases": cold["cases"], "defects": cold["defects"], "megabytes": cold["megabytes"]}
    return row


def time_reading(root: Path, name: str, files: int, side: int, repeats: int) -> dict[str, Any]:
    """Read every case of a fresh source, and decode the same files plainly, turn about."""
    from medseg_gym.cases.files import FileData
    from medseg_gym.cases.files.dataset_formats import read_file_spec

    data = root / f"{name}-{side}"
    WRITERS[name](data, files, side)
    spec = read_file_spec(SPECS[name].format(root=data))
    assert spec is not None
    ours, plain = [], []
    for _ in range(repeats):
        index = FileData(spec[0](spec[1]))
        began = time.perf_counter()
        for record in index.records:
            index.case(record)
        ours.append((time.perf_counter() - began) / len(index.records))
        began = time.perf_counter()
        count = DECODERS[name](data)
        plain.append((time.perf_counter() - began) / count)
    return {
        "format": name,
        "side": side,
        "milliseconds": 1000 * median(ours),
        "plain_milliseconds": 1000 * median(plain),
        "ratio": median(a / b for a, b in zip(ours, plain, strict=True)),
    }


def measure(
    formats: Annotated[str, typer.Option(help="Comma between.")] = ",".join(SPECS),
    files: Annotated[int, typer.Option(help="Small files per format.")] = 10_000,
    side: Annotated[int, typer.Option(help="Pixels of a small image's edge.")] = 64,
    read_sides: Annotated[str, typer.Option(help="Edges for reading.")] = "128,512",
    repeats: Annotated[int, typer.Option(help="Readings; the median counts.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/case_indexing"),
) -> None:
    """Index and read synthetic files of every format; exit code 1 below a floor."""
    console = make_console()
    indexed, read = [], []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        for format in formats.split(","):
            indexed.append(time_indexing(root, format, files, side))
            for edge in map(int, read_sides.split(",")):
                read.append(time_reading(root, format, 200, edge, repeats))
            console.print(f"{format} done")
    console.print(_indexing_table(indexed))
    console.print(_reading_table(read))
    machine = f"{describe_machine()}, load {os.getloadavg()[0]:.1f}"
    console.print(f"Measured on: {machine}")
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "indexing": indexed, "reading": read}
    atomic_write(out / "results.json", json.dumps(results, indent=1))
    slow = [
        row["format"]
        for row in indexed
        for level in ("open", "check")
        if row[f"{level}_cold"] > COLD_FLOOR or row[f"{level}_warm"] > WARM_FLOOR or row["defects"]
    ]
    slow += [row["format"] for row in read if row["ratio"] > READING_FLOOR]
    if slow:
        console.print(f"below a floor: {', '.join(sorted(set(slow)))}", style="red")
        raise typer.Exit(1)


def _indexing_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"seconds of indexing (floors: cold {COLD_FLOOR:g}, warm {WARM_FLOOR:g})")
    for header in ("format", "files", "cases", "open cold", "open warm", "check cold"):
        table.add_column(header, justify="left" if header == "format" else "right")
    table.add_column("check warm", justify="right")
    table.add_column("MB", justify="right")
    for row in rows:
        times = [f"{row[f'{a}_{b}']:.2f}" for a in ("open", "check") for b in ("cold", "warm")]
        counts = (str(row["files"]), str(row["cases"]))
        table.add_row(row["format"], *counts, *times, str(row["megabytes"]))
        for defect in row["defects"]:
            table.add_row("", "", "", defect)
    return table


def _reading_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"milliseconds a case (floor: {READING_FLOOR:g} times the plain decoder)")
    for header in ("format", "edge", "source[i]", "plain decoder", "ratio"):
        table.add_column(header, justify="left" if header == "format" else "right")
    for row in rows:
        times = [f"{row[key]:.2f}" for key in ("milliseconds", "plain_milliseconds", "ratio")]
        table.add_row(row["format"], str(row["side"]), *times)
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
