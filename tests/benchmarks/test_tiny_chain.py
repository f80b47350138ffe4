import json

import pytest

pytest.importorskip("trl")

from benchmarks.learning.chain_drawings import take_drawings
from benchmarks.learning.chain_sizes import Chain
from benchmarks.learning.tiny_chain import run_chain
from benchmarks.shared.sizes import claim, read_settings
from medseg_gym.errors import MedSegError


def test_sizes_are_read_and_unknown_ones_refused():
    chain = read_settings(Chain, "experts=8,lr=0.001,annotator=box-to-point")
    assert (chain.experts, chain.lr, chain.annotator) == (8, 0.001, "box-to-point")
    assert read_settings(Chain, "") == Chain()
    with pytest.raises(MedSegError, match="no setting 'expert'"):
        read_settings(Chain, "expert=8")


def test_images_of_another_seed_are_taken_and_those_of_other_sizes_refused(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for file in ("first_turns/000.parquet", "vision/train/000400.npz", "vision/val/000000.npz"):
        (one / file).parent.mkdir(parents=True, exist_ok=True)
        (one / file).write_text(file)
    (one / "vision" / "train" / ".000400.npz.part").write_text("torn")
    (one / "sft").mkdir()
    chain = Chain(seed=1, drawings=str(one), images=64)
    with pytest.raises(MedSegError, match=r"no .*chain\.json; begin that chain first"):
        take_drawings(chain, other)
    claim(one / "chain.json", Chain(images=64))
    (other / "first_turns").mkdir(parents=True)
    (other / "first_turns" / "000.parquet").write_text("its own")
    take_drawings(chain, other)
    take_drawings(chain, other)  # nothing is done again
    files = sorted(str(path.relative_to(other)) for path in other.rglob("*.*"))
    assert files == ["first_turns/000.parquet", "vision/train/000400.npz", "vision/val/000000.npz"]
    assert (other / "first_turns" / "000.parquet").read_text() == "its own"
    assert (other / "vision" / "val" / "000000.npz").read_text() == "vision/val/000000.npz"
    with pytest.raises(MedSegError, match="has images=64, this chain 65"):
        take_drawings(Chain(drawings=str(one), images=65), tmp_path / "third")
    assert not (tmp_path / "third").exists()


@pytest.mark.slow
def test_the_whole_chain_runs_and_goes_on(tmp_path):
    small = (
        "experts=8,images=16,vision_steps=2,vision_again=1,first_steps=2,mixed_steps=2,batch=2,"
        "test=8,num_envs=8,backbone=ellipse,image_size=64,max_steps=3"
    )
    out = tmp_path / "chain"
    run_chain(out=out, workers=1, threads=1, settings=small)
    result = json.loads((out / "result.json").read_text())
    rows = {row["policy"]: row for row in result["rows"]}
    assert len(rows) == 10 and all(row["cases"] == 8 for row in rows.values())
    assert rows["stop at once"]["dice"] == 0 and rows["stop at once"]["valid_rate"] == 1
    assert 0 < rows["the target's location prior"]["first_box_iou"] < 0.9
    assert rows["oracle: tight box"]["first_box_iou"] > 0.98
    assert 0 < rows["centre box"]["first_box_iou"] < 0.5
    assert "oracle" in rows["oracle: what it learned from"]["notes"]
    assert rows["tiny, greedy"]["notes"] == "synthetic"
    assert (out / "curve.png").stat().st_size > 5000
    model = (out / "sft" / "model" / "model.safetensors").read_bytes()
    run_chain(out=out, workers=1, threads=1, settings=small)  # nothing is done again
    assert (out / "sft" / "model" / "model.safetensors").read_bytes() == model
    assert json.loads((out / "result.json").read_text())["rows"] == result["rows"]
    assert (out / "vision" / "again" / "model").is_dir()
    drawn = (out / "first_turns" / "000.parquet").stat().st_ino
    other = tmp_path / "other"
    of_other = f"{small},seed=1,drawings={out},mixed_steps=1"
    run_chain(out=other, workers=1, threads=1, settings=of_other)
    assert (other / "first_turns" / "000.parquet").stat().st_ino == drawn
    assert json.loads((other / "result.json").read_text())["chain"]["seed"] == 1
    with pytest.raises(MedSegError, match="other settings"):
        run_chain(out=out, workers=1, threads=1, settings="experts=4")
