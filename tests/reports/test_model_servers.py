"""`medseg eval --policy openai:MODEL` against a strict server on loopback."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from strict_server import StrictServer

from medseg_gym.cli.main import main

CUT = re.compile(r"cut[ _](off|short)|truncated|limit|max_tokens|too long|finish_reason", re.I)


@pytest.fixture
def data(tmp_path):
    image = np.random.default_rng(1).integers(0, 90, (48, 64, 3), dtype=np.uint8)
    image[12:36, 16:48] += 120
    mask = np.zeros((48, 64), np.uint8)
    mask[12:36, 16:48] = 255
    for name, pixels in (("images", image), ("masks", mask)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "square.png")
    return f"folder:{tmp_path}/data?target=bright square&splits=100,0,0"


def play(mode, data, folder, monkeypatch):
    """The server after the run, the record of the case, and what the summary says of answers."""
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = StrictServer(mode)
    native = "yes" if mode == "calls" else "no"
    policy = f"openai:m?base_url={server.url}&image_size=32&native_tools={native}"
    command = ["medseg", "eval", "--policy", policy, "--backbone", "ellipse", "--device", "cpu"]
    command += ["--cases", data, "--split", "train", "--num-envs", "1", "--out", str(folder)]
    monkeypatch.setattr("sys.argv", command)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        server.close()
    assert not ended.value.code, ended.value.code
    record = json.loads((folder / "records.jsonl").read_text().splitlines()[-1])
    usage = json.loads((folder / "summary.json").read_text())["usage_of_this_call"]
    return server, record, usage


@pytest.mark.parametrize("mode", ["text", "calls", "error_500", "rate_429"])
def test_a_box_and_a_stop_are_played(mode, data, tmp_path, monkeypatch):
    server, record, _ = play(mode, data, tmp_path / "out", monkeypatch)
    assert server.objections == []
    assert record["tools"] == ["box", "stop"]
    if mode == "rate_429":
        assert server.times[1] - server.times[0] >= 1


@pytest.mark.parametrize("mode", ["cut", "cut_text"])
def test_an_answer_that_ran_into_the_limit_is_known_as_cut(mode, data, tmp_path, monkeypatch):
    server, record, usage = play(mode, data, tmp_path / "out", monkeypatch)
    assert server.objections == [] and usage["cut_off"]
    if record["tools"] != ["box", "stop"]:  # not asked again at once: then somebody was told why
        users = [m for m in server.requests[-1]["messages"] if m["role"] == "user"][1:]
        record.pop("answers", None)
        assert CUT.search(json.dumps([users, record]))
