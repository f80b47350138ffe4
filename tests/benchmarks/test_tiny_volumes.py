import json

import pytest

pytest.importorskip("trl")

from benchmarks.learning.tiny_volumes.__main__ import run_chain
from benchmarks.learning.tiny_volumes.chain import VolumeChain
from benchmarks.shared.sizes import read_settings
from medseg_gym.envs.volumes import VolumeChatOptions


def test_sizes_are_those_of_the_chain_and_the_overviews():
    chain = read_settings(VolumeChain, "experts=8,overview_size=32")
    assert (chain.experts, chain.overview_size, chain.per_image) == (8, 32, 6)
    assert isinstance(chain.chat, VolumeChatOptions) and chain.chat.overview_size == 32


@pytest.mark.slow
def test_the_whole_chain_runs_and_goes_on(tmp_path):
    small = (
        "experts=6,images=4,first_steps=2,mixed_steps=2,batch=2,test=12,num_envs=12,"
        "backbone=ellipse,image_size=64,overview_size=32,max_steps=3"
    )
    out = tmp_path / "chain"
    run_chain(out=out, workers=1, threads=1, settings=small)
    result = json.loads((out / "result.json").read_text())
    rows = {row["policy"]: row for row in result["rows"]}
    assert len(rows) == 5 and all(row["cases"] == 12 for row in rows.values())
    oracle = rows["what it learned from"]
    assert oracle["first_box_iou"] > 0.95 and oracle["slices_from_key"] == 0
    assert oracle["note"] == "oracle; synthetic" and oracle["valid_rate"] == 1
    assert rows["tiny, greedy"]["note"] == "synthetic"
    assert rows["middle box"]["dice"] < oracle["dice"]
    assert (out / "curve.png").stat().st_size > 5000
    run_chain(out=out, workers=1, threads=1, settings=small)  # nothing is done again
    assert json.loads((out / "result.json").read_text())["rows"] == result["rows"]
