import json

import pytest

pytest.importorskip("trl")

from benchmarks.learning.chain_sizes import Chain
from benchmarks.learning.tiny_chain import run_chain
from benchmarks.shared.sizes import read_settings
from medseg_gym.errors import MedSegError


def test_sizes_are_read_and_unknown_ones_refused():
    chain = read_settings(Chain, "experts=8,lr=0.001,annotator=box-to-point")
    assert (chain.experts, chain.lr, chain.annotator) == (8, 0.001, "box-to-point")
    assert read_settings(Chain, "") == Chain()
    with pytest.raises(MedSegError, match="no setting 'expert'"):
        read_settings(Chain, "expert=8")


@pytest.mark.slow
def test_the_whole_chain_runs_and_goes_on(tmp_path):
    small = (
        "experts=8,images=16,vision_steps=2,first_steps=2,mixed_steps=2,batch=2,test=8,num_envs=8,"
        "backbone=ellipse,image_size=64,max_steps=3"
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
    assert (out / "vision" / "model").is_dir()
    with pytest.raises(MedSegError, match="other settings"):
        run_chain(out=out, workers=1, threads=1, settings="experts=4")
