"""The figure of how chains learned."""

import json

import pytest
from skimage import io

pytest.importorskip("trl")

from benchmarks.learning.chain_curve import _points, draw
from medseg_gym.errors import MedSegError


def write(chain, stage, key, values):
    folder = chain / stage
    folder.mkdir(parents=True)
    rows = [{"step": 50 * k, key: value} for k, value in enumerate(values, 1)]
    rows.append({"step": 1000, "other": 1})  # rows of other figures are passed over
    (folder / "progress.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_panel_is_drawn_for_each_stage_and_a_line_for_each_chain(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "sft", "loss", [3, 1, 0.8])
    draw([one], tmp_path / "one.png")
    write(two, "vision", "held_out/box_iou", [0.3, 0.6])
    write(two, "sft", "loss", [2, 1.5, 0.9])
    draw([one, two], tmp_path / "new" / "both.png")
    files = tmp_path / "one.png", tmp_path / "new" / "both.png"
    narrow, wide = (io.imread(file) for file in files)
    assert wide.shape[1] == 2 * narrow.shape[1] and wide.shape[0] > narrow.shape[0]  # a legend
    assert narrow.std() > 1 and wide.std() > 1


def test_a_tower_that_went_on_is_drawn_behind_its_first_steps(tmp_path):
    write(tmp_path, "vision", "held_out/box_iou", [0.3, 0.6])
    assert _points(tmp_path / "vision", "held_out/box_iou") == [(50, 0.3), (100, 0.6)]
    draw([tmp_path], tmp_path / "short.png")
    write(tmp_path, "vision/again", "held_out/box_iou", [0.5, 0.7])
    draw([tmp_path], tmp_path / "long.png")
    assert _points(tmp_path / "vision" / "again", "held_out/box_iou", 100)[-1] == (200, 0.7)
    assert (tmp_path / "short.png").read_bytes() != (tmp_path / "long.png").read_bytes()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "sft").mkdir()
    with pytest.raises(MedSegError, match="not a folder of tiny_chain"):
        draw([tmp_path], tmp_path / "curve.png")
