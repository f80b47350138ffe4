"""Model files: read without running code, or refused by name and cause."""

from __future__ import annotations

import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.errors import BackboneError, CheckpointError

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


class Payload:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def refused(path: Path) -> str:
    """The message; it starts with the file's name."""
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def same(result: dict[str, torch.Tensor]) -> bool:
    return list(result) == list(WEIGHTS) and all(torch.equal(result[k], WEIGHTS[k]) for k in result)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS},
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {"state_dict": WEIGHTS}},
    ],
    ids=["bare", "model", "state_dict", "nested"],
)
def test_state_dicts_are_read_wrapped_or_bare(tmp_path, content, zipped):
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(path)) and same(read_state_dict(str(path)))


def test_safetensors_are_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(WEIGHTS, path)
    result = read_state_dict(path)
    assert same({key: result[key] for key in WEIGHTS}) and len(result) == 2


def test_a_missing_file_and_a_directory(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pth")
    assert "is a directory" in refused(tmp_path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_is_not_run(tmp_path, protocol):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Payload(trace)}, protocol))
    assert "could run code; it was not loaded" in refused(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the payload would not have shown"


def test_code_in_a_torch_file_is_not_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    torch.save({"model": WEIGHTS, "extra": Payload(trace)}, path)
    assert "could run code" in refused(path) and not trace.exists()
    torch.save({"model": WEIGHTS, "args": Namespace(lr=1)}, path)
    assert "Save the state dict alone" in refused(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_a_truncated_torch_file(tmp_path, share, zipped):
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.rand(5000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = refused(path)
    assert f"truncated model file of {path.stat().st_size} bytes" in message
    assert "fetch it again" in message and "\n" not in message


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_a_truncated_safetensors_file(tmp_path, share):
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.rand(5000)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "truncated model file" in refused(path)


@pytest.mark.parametrize(
    "text",
    [
        b"<!DOCTYPE html><title>404</title>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"import os\n",
        b"a",
        b"((((",
        b"\x93NUMPY\x01\x00",
    ],
    ids=lambda text: text[:8].decode("latin1").encode("unicode_escape").decode(),
)
def test_a_file_of_something_else_shows_how_it_begins(tmp_path, text):
    path = tmp_path / "weights.pth"
    path.write_bytes(text)
    message = refused(path)
    assert "not a PyTorch checkpoint, it begins with b" in message
    assert text[:8].decode("latin1").encode("unicode_escape").decode() in message
    assert "damaged" in refused(path.rename(tmp_path / "weights.safetensors"))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("garbage")


@given(
    st.sampled_from([".pth", ".pt", ".bin", ".safetensors"]),
    st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]),
    st.binary(max_size=40),
)
@example(".pth", b"\x80\x02", b"R.")
@settings(max_examples=150)
def test_garbage_is_refused_whatever_it_is(scratch, suffix, start, rest):
    path = scratch / f"garbage{suffix}"
    path.write_bytes(start + rest)
    refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.zeros(3)], "expected a state dict, found list"),
        (torch.zeros(3), "expected a state dict, found Tensor"),
        ({}, "expected a state dict, found dict"),
        ({"epoch": 3, "w": torch.zeros(1)}, "entry 'epoch' is a int, expected tensors only"),
        ({"model": WEIGHTS | {"step": 1}}, "entry 'step' is a int"),
    ],
)
def test_tensors_that_are_no_state_dict(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert words in refused(path)


def test_weights_fill_the_model():
    model = nn.Linear(3, 2)
    load_weights(model, WEIGHTS, "f.pth")
    assert same(model.state_dict())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": WEIGHTS["weight"]}, "1 missing (first: bias) of 2 entries"),
        (WEIGHTS | {"scale": torch.ones(1), "x": torch.ones(1)}, "2 unexpected (first: scale)"),
        (
            WEIGHTS | {"bias": torch.ones(5)},
            "1 of another shape (first: bias (5,) instead of (2,))",
        ),
        ({"head.weight": WEIGHTS["weight"]}, "2 missing (first: weight); 1 unexpected"),
    ],
)
def test_weights_that_do_not_fit_are_counted_and_named(state, words):
    model = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, state, "dir/f.pth")
    message = str(caught.value)
    assert (
        message.startswith("dir/f.pth: the checkpoint does not fit Linear: ") and words in message
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_error_is_a_backbone_error():
    assert issubclass(CheckpointError, BackboneError)
