"""A thousand volumes: opened with and without an index, and their slices read in any order.

    python -m benchmarks.data.volume_indexing

Volumes are synthetic: of NIfTI pairs a label file of three ellipsoids and a smooth image, of DICOM
series with a structure set. What the first index reads is counted in bytes, of NIfTI the headers
and the labels as decoded, of DICOM everything in the files but pixels; its speed is per second of
CPU, so that programs beside it change it little. "Opened" is wall time with the index cached.
Slices are read at random through a cache of decoded volumes whose bytes are bounded, here below
what all take.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.data.case_indexing import time_index
from benchmarks.shared.results import show_and_keep
from medseg_gym.cases import load_cases
from medseg_gym.cases.files import ByteCache
from medseg_gym.display.terminal import Table

OPENED_FLOOR, FIRST_FLOOR = 2.0, 200.0
_DISTINCT = 20


@dataclass(frozen=True)
class Written:
    """A data set on disk.

    Args:
        spec: Of its cases.
        volumes: How many.
        read: Bytes that its index is made of.
        files: How many there are.
        decoded: Bytes of a decoded image with its labels.
    """

    spec: str
    volumes: int
    read: int
    files: int
    decoded: int


def write_nifti(root: Path, volumes: int, side: int, depth: int) -> Written:
    """Write compressed pairs; every twentieth has the same voxels."""
    import nibabel

    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    names = {"background": 0, "liver": 1, "kidney": 2, "spleen": 3}
    described = {"labels": names, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    shape = (side, side, depth)
    files: list[tuple[bytes, bytes]] = []
    for image, label in islands(min(volumes, _DISTINCT), shape):
        pair = tuple(nibabel.Nifti1Image(array, affine).to_bytes() for array in (image, label))
        files.append((_compressed(pair[0]), _compressed(pair[1])))
    for number in range(volumes):
        image_file, label_file = files[number % len(files)]
        (root / "imagesTr" / f"case_{number:06d}_0000.nii.gz").write_bytes(image_file)
        (root / "labelsTr" / f"case_{number:06d}.nii.gz").write_bytes(label_file)
    voxels = side * side * depth
    return Written(f"nifti:{root}", volumes, volumes * (2 * 352 + voxels), 2 * volumes, 3 * voxels)


def _compressed(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, compresslevel=1)


def islands(count: int, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield int16 images and uint8 labels of three ellipsoids."""
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[tuple(slice(-1, 1, 1j * n) for n in shape)]
    for _ in range(count):
        label = np.zeros(shape, np.uint8)
        for value in (1, 2, 3):
            cx, cy, cz = rng.uniform(-0.5, 0.5, 3)
            radius = rng.uniform(0.15, 0.35)
            label[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = value
        image = (40 * x + 30 * y + 20 * z).astype(np.int16) + 60 * label.astype(np.int16)
        yield image, label


def write_dicom(root: Path, volumes: int, side: int, depth: int) -> Written:
    """Write series, each with a structure set."""
    from benchmarks.data.case_dicom import write_series
    from benchmarks.data.case_files import draw_images

    stack = list(draw_images(depth, side))
    for series in range(volumes):
        write_series(root / f"patient{series:04d}", series, stack)
    pixels = volumes * depth * side * side * 2
    size = sum(path.stat().st_size for path in root.rglob("*.dcm"))
    files = volumes * (depth + 1)
    return Written(f"dicom:{root}", volumes, size - pixels, files, depth * side * side * 2)


WRITERS = {"nifti": write_nifti, "dicom": write_dicom}


def cache_of(name: str) -> ByteCache:
    """Return the cache that a format's decoded files go through."""
    if name == "nifti":
        from medseg_gym.cases.volumes.volume import decoded

        return decoded
    from medseg_gym.cases.dicom.frames import datasets

    return datasets


def time_volumes(root: Path, name: str, volumes: int, side: int, depth: int) -> dict[str, Any]:
    """Write a data set, index it, open it again, and read slices in any order."""
    written = WRITERS[name](root / name, volumes, side, depth)
    time.sleep(0.2)  # until the index trusts the files' times
    cache = root / f"cache-{name}"
    cold = time_index(written.spec, "open", cache)
    warm = [time_index(written.spec, "open", cache) for _ in range(3)]
    return {
        "format": name,
        "volumes": volumes,
        "cases": cold["cases"],
        "defects": cold["defects"],
        "first_seconds": cold["cpu_seconds"],
        "read_megabytes": written.read / 1e6,
        "megabytes_per_second": written.read / 1e6 / cold["cpu_seconds"],
        "files_per_second": written.files / cold["cpu_seconds"],
        "opened_seconds": median(timing["seconds"] for timing in warm),
        "opened_cpu_seconds": median(timing["cpu_seconds"] for timing in warm),
        **read_at_random(name, written, cache),
    }


def read_at_random(name: str, written: Written, index: Path, cases: int = 300) -> dict[str, Any]:
    """Read cases of 40 volumes in random order, with room for all of them and for a quarter.

    Returns:
        Milliseconds a case and the most bytes that the cache held, for both.
    """
    os.environ["XDG_CACHE_HOME"] = str(index)
    cache, results = cache_of(name), dict[str, Any]()
    source, before = load_cases(written.spec, "all"), cache.limit
    rng = np.random.default_rng(0)
    groups = sorted({volume_of(key) for key in source.keys})[:40]
    near = [i for i, key in enumerate(source.keys) if volume_of(key) in set(groups)]
    order = rng.choice(near, cases)
    whole = len(groups) * written.decoded
    for label, limit in (("roomy", before), ("tight", whole // 4)):
        cache.limit = limit
        cache.clear()
        held, began = 0, time.process_time()
        for i in order.tolist():
            source[i]
            held = max(held, cache.nbytes)
        seconds = time.process_time() - began
        results |= {
            f"{label}_ms": 1000 * seconds / len(order),
            f"{label}_held_mb": held / 1e6,
            f"{label}_limit_mb": limit / 1e6,
        }
    cache.limit = before
    cache.clear()
    return results


def volume_of(key: str) -> str:
    """Return the part of a case's key that all slices of its volume have."""
    return key.rpartition("/z")[0]


def measure(
    formats: Annotated[str, typer.Option(help="Comma between.")] = ",".join(WRITERS),
    volumes: Annotated[int, typer.Option(help="Of each format.")] = 1000,
    side: Annotated[int, typer.Option(help="Pixels of a NIfTI slice's edge; of DICOM half.")] = 256,
    depth: Annotated[int, typer.Option(help="Slices of a NIfTI volume.")] = 64,
    series: Annotated[int, typer.Option(help="Slices of a DICOM series.")] = 8,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path(
        "out/volume_indexing"
    ),
) -> None:
    """Index, open and read; exit code 1 below a floor."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in formats.split(","):
            edge, slices = (side // 2, series) if name == "dicom" else (side, depth)
            rows.append(time_volumes(Path(folder), name, volumes, edge, slices))
    machine = f"{describe_machine()}, load {os.getloadavg()[0]:.1f}"
    show_and_keep(as_table(rows), machine, out, rows=rows)
    if any(
        row["opened_seconds"] > OPENED_FLOOR
        or row["megabytes_per_second"] < FIRST_FLOOR
        or row["tight_held_mb"] > row["tight_limit_mb"]
        for row in rows
    ):
        raise typer.Exit(1)


def as_table(rows: list[dict[str, Any]]) -> Table:
    """One line a format."""
    table = Table(title=f"volumes (floors: opened {OPENED_FLOOR:g} s, first {FIRST_FLOOR:g} MB/s)")
    columns = {
        "format": "{format}",
        "volumes": "{volumes}",
        "cases": "{cases}",
        "first index, CPU s": "{first_seconds:.2f}",
        "MB read": "{read_megabytes:.0f}",
        "MB/s": "{megabytes_per_second:.3g}",
        "files/s": "{files_per_second:.0f}",
        "opened, s": "{opened_seconds:.2f}",
        "CPU s": "{opened_cpu_seconds:.2f}",
        "ms a slice": "{roomy_ms:.2f}",
        "MB held": "{roomy_held_mb:.0f} of {roomy_limit_mb:.0f}",
        "less room: ms": "{tight_ms:.2f}",
        "MB": "{tight_held_mb:.1f} of {tight_limit_mb:.1f}",
    }
    for header in columns:
        table.add_column(header, justify="left" if header == "format" else "right")
    for row in rows:
        table.add_row(*(text.format(**row) for text in columns.values()))
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
