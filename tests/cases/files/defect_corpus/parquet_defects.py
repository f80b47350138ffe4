"""Defects of reinforcement-learning parquet files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from defect_corpus import Expected, defect
from defect_corpus.images import encoded, image, mask, png_bomb

NAME = "train.parquet"
Row = dict[str, Any]


def rows(count: int = 4) -> list[Row]:
    return [
        {
            "prompt": [{"role": "user", "content": "<image>"}],
            "images": [{"bytes": encoded(image(number))}],
            "reward_model": {"style": "rule", "ground_truth": {"bytes": encoded(mask())}},
            "extra_info": {"target_description": "lung in chest CT", "index": number},
        }
        for number in range(count)
    ]


def write(root: Path, made: list[Row], group: int = 2) -> None:
    pq.write_table(pa.Table.from_pylist(made), root / NAME, row_group_size=group)


def spoiled(name: str, spoil: Callable[[Row], object], cause: str, healthy: int = 3) -> None:
    """Register a defect of row 1 of four."""

    def make(root: Path) -> Expected:
        made = rows()
        spoil(made[1])
        write(root, made)
        return Expected(NAME, "row 1.*" + cause, healthy)

    defect("parquet", name)(make)


def set_mask(content: bytes | None) -> Callable[[Row], object]:
    return lambda row: row["reward_model"].update(ground_truth={"bytes": content})


def set_image(content: bytes | None) -> Callable[[Row], object]:
    return lambda row: row.update(images=[{"bytes": content}])


spoiled("mask-null", set_mask(None), "ground_truth is null")
spoiled("mask-no-bytes", set_mask(b""), "ground_truth has 0 bytes")
spoiled("mask-no-image", set_mask(b"nothing"), "ground_truth: is not an image")
spoiled("mask-bomb", set_mask(png_bomb()), "announces 60000|decompression bomb")
spoiled("mask-other-proportions", set_mask(encoded(mask(20, 60))), r"mask is \(20, 60\) but")
spoiled(
    "image-truncated", set_image(encoded(image())[:200]), r"images\[0\]: .*([Tt]runcated|broken)"
)
spoiled("image-null", set_image(None), r"images\[0\] is null")
spoiled("images-empty", lambda row: row.update(images=[]), "images is empty")
spoiled("images-null", lambda row: row.update(images=None), "images is empty")
spoiled("target-null", lambda row: row["extra_info"].update(target_description=None), "is empty")
spoiled("target-blank", lambda row: row["extra_info"].update(target_description=" "), "is empty")
spoiled("extra-null", lambda row: row.update(extra_info=None), "target_description is empty")


def beside_a_sound_file(name: str, spoil: Callable[[Path], object], cause: str) -> None:
    """Register a bad file; a sound one of four rows lies beside it."""

    def make(root: Path) -> Expected:
        write(root, rows())
        bad = root / "test.parquet"
        spoil(bad)
        return Expected(bad.name, cause, healthy=4)

    defect("parquet", name)(make)


def without(column: str) -> Callable[[Path], object]:
    made = [{key: value for key, value in row.items() if key != column} for row in rows(2)]
    return lambda path: pq.write_table(pa.Table.from_pylist(made), path)


def cut(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), path)
    path.write_bytes(path.read_bytes()[:-200])


def bomb(path: Path) -> None:
    """300 megabytes of zeros as a mask, in some tens of kilobytes."""
    made = rows(1)
    made[0]["reward_model"]["ground_truth"]["bytes"] = bytes(300_000_000)
    # Without statistics: looking for the least and the greatest of 300 MB takes five seconds.
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.Table.from_pylist(made), path, **options)


beside_a_sound_file("zero-bytes", lambda path: path.touch(), "empty \\(0 bytes\\)")
beside_a_sound_file("not-parquet", lambda path: path.write_text("a,b\n1,2\n"), "[Pp]arquet")
beside_a_sound_file("footer-cut-off", cut, "[Pp]arquet|footer|magic")
beside_a_sound_file("no-images", without("images"), "column images is missing")
beside_a_sound_file("no-truth", without("reward_model"), "reward_model.ground_truth is missing")
beside_a_sound_file("no-extra", without("extra_info"), "extra_info.target_description is missing")
beside_a_sound_file("a-fifo", os.mkfifo, "is a FIFO")
beside_a_sound_file("column-bomb", bomb, "announces \\d+ bytes")
beside_a_sound_file(
    "no-rows",
    lambda path: pq.write_table(pa.Table.from_pylist(rows()).slice(0, 0), path),
    "has no rows",
)


@defect("parquet", "row-group-damaged")
def _(root: Path) -> Expected:
    write(root, rows())
    path = root / NAME
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    return Expected(NAME, "row group 0", healthy=2)


@defect("parquet", "same-key-twice")
def _(root: Path) -> Expected:
    made = rows()
    for row in made:
        row["extra_info"]["key"] = f"case-{row['extra_info']['index'] // 2 * 2}"
    write(root, made)
    return Expected(NAME, "a second case has the key 'case-0'", healthy=2)


@defect("parquet", "unreadable")
def _(root: Path) -> Expected:
    write(root, rows())
    pq.write_table(pa.Table.from_pylist(rows()), root / "test.parquet")
    (root / "test.parquet").chmod(0)
    return Expected("test.parquet", "permission denied", healthy=4, unprivileged=True)


@defect("parquet", "two-images-a-row")
def _(root: Path) -> Expected:
    made = rows()
    made[2]["images"] *= 2
    write(root, made)
    return Expected(NAME, "more than one image", healthy=4, note=True)
