"""MedSAM-Agent's parquet: foreign files of its columns, splits, sizes, and reading in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from defect_corpus.images import encoded, image, mask
from defect_corpus.parquet_defects import rows
from PIL import Image

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.files import index_dataset
from medseg_gym.cases.parquet import ParquetFormat
from medseg_gym.cases.parquet import rows as row_reader


def write(path: Path, made: list[dict], group: int = 4) -> Path:
    pq.write_table(pa.Table.from_pylist(made), path, row_group_size=group)
    return path


def test_a_foreign_file_is_read(tmp_path):
    write(tmp_path / "train.parquet", rows(6))
    source = load_cases(f"parquet:{tmp_path}/train.parquet", "train")
    assert len(source) == 6 and source.targets == ("lung in chest CT",)
    for number, case in enumerate(source):
        assert case.key == f"train.parquet#{number:06d}" and case.modality == "CT"
        assert (case.image == image(number)).all() and (case.mask == (mask() > 0)).all()
    assert len({case.group for case in source}) == 6


def test_the_file_name_says_the_split_and_the_folder_holds_several(tmp_path):
    for name, count in (("train", 4), ("val-00000-of-00001", 2), ("test", 1)):
        write(tmp_path / f"{name}.parquet", rows(count))
    spec = f"parquet:{tmp_path}"
    assert [len(load_cases(spec, split)) for split in ("train", "val", "test")] == [4, 2, 1]


def test_without_a_named_split_equal_images_stay_together(tmp_path):
    made = rows(40)
    for number, row in enumerate(made):
        row["images"] = made[number // 4 * 4]["images"]
    write(tmp_path / "all.parquet", made)
    data = index_dataset(ParquetFormat, f"{tmp_path}/all.parquet?splits=50,25,25")
    assert len({record.group for record in data.records}) == 10
    by_group = {record.group: set() for record in data.records}
    for record in data.records:
        by_group[record.group].add(record.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert len({split for splits in by_group.values() for split in splits}) == 3


@pytest.mark.parametrize("limit", [10**9, 0], ids=["whole-groups", "streamed"])
def test_rows_are_found_in_any_order_whatever_the_row_groups(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(row_reader, "GROUP_BYTES", limit)
    write(tmp_path / "train.parquet", rows(50), group=37)
    source = load_cases(f"parquet:{tmp_path}", "train")
    order = np.random.default_rng(1).permutation(50)
    for number in [*order, *range(50)]:
        assert (source[int(number)].image == image(number)).all()


def test_flat_columns_and_bare_bytes_are_understood(tmp_path):
    flat = [
        {
            "images": row["images"],
            "reward_model.ground_truth": row["reward_model"]["ground_truth"]["bytes"],
            "extra_info.target_description": row["extra_info"]["target_description"],
        }
        for row in rows(3)
    ]
    write(tmp_path / "train.parquet", flat)
    assert all(case.mask.any() for case in load_cases(f"parquet:{tmp_path}", "train"))


@pytest.mark.parametrize(
    ("values", "foreground"),
    [((0, 255), (255,)), ((0, 1), (1,)), ((0, 100, 127, 128, 255), (128, 255)), ((0,), ())],
)
def test_the_foreground_is_above_127_or_one(tmp_path, values, foreground):
    drawn = np.resize(np.array(values, np.uint8), (20, 24))
    made = rows(1)
    made[0]["reward_model"]["ground_truth"]["bytes"] = encoded(drawn)
    write(tmp_path / "train.parquet", made)
    (case,) = load_cases(f"parquet:{tmp_path}", "train")
    assert (case.mask == np.isin(drawn, foreground)).all()


def test_an_image_scaled_for_a_language_model_fits_its_mask_again(tmp_path):
    made = rows(1)
    made[0]["images"][0]["bytes"] = encoded(Image.fromarray(image(0, 30, 41)))
    made[0]["reward_model"]["ground_truth"]["bytes"] = encoded(mask(61, 83))
    write(tmp_path / "train.parquet", made)
    (case,) = load_cases(f"parquet:{tmp_path}", "train")
    assert case.image.shape == (61, 83, 3) and (case.mask == (mask(61, 83) > 0)).all()


def test_rows_are_not_read_again_until_the_file_changes(tmp_path):
    import os

    path = write(tmp_path / "train.parquet", rows(3))
    os.utime(path, (1, 1))
    assert len(index_dataset(ParquetFormat, str(path)).records) == 3
    raw = path.read_bytes()
    path.write_bytes(b"x" * len(raw))
    os.utime(path, (1, 1))
    assert len(index_dataset(ParquetFormat, str(path)).records) == 3, "size and time are the same"
    path.write_bytes(raw)
    write(path, rows(5))
    assert len(index_dataset(ParquetFormat, str(path)).records) == 5


def test_a_file_that_changed_behind_the_source_is_an_error(tmp_path):
    path = write(tmp_path / "train.parquet", rows(5))
    source = load_cases(f"parquet:{path}", "train")
    write(path, rows(1))
    with pytest.raises(CaseError, match=r"row 4 is gone; the file changed|train\.parquet"):
        source[4]


def test_exported_trajectories_are_cases_again(tmp_path):
    """The columns that `medseg trajectories export --format verl-parquet` writes."""
    from medseg_gym.trajectories.export.export import VERL_SCHEMA

    made = rows(2)
    for row in made:
        row["data_source"] = "tests"
        row["extra_info"] = {"target_description": "lung", "case": "k", "split": "val"}
    pq.write_table(pa.Table.from_pylist(made, schema=VERL_SCHEMA), tmp_path / "x.parquet")
    assert len(load_cases(f"parquet:{tmp_path}", "val")) == 2
