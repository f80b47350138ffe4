"""The state of an algorithm comes back as it was, and nothing in its folder is ever run."""

import os
import pickle
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medseg_agents.runs.algorithm_state import load_state, save_state

from medseg_gym.errors import MedSegError


class Algorithm:
    def __init__(self, state=None):
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


STATE = {
    "weights": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), 0: np.array(1.5)},
    "tensors": (torch.ones(2, 2, dtype=torch.bfloat16), torch.zeros((0, 3), dtype=torch.int64)),
    "numbers": [1, -2.5, True, None, float("inf"), np.float32(0.1), np.int64(2**40), 2**70],
    "more": {"queue": deque([1, 2], maxlen=5), "set": {1, 2}, ("a", 1): "tuple key", "": {}},
    "of": {"array": "a name like a mark's", "dict": []},
}


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (np.ndarray, torch.Tensor)):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b and (not isinstance(a, deque) or a.maxlen == b.maxlen)


def test_a_state_comes_back_as_it_was(tmp_path):
    save_state(Algorithm(STATE), tmp_path / "algorithm")
    again = Algorithm()
    load_state(again, tmp_path / "algorithm")
    assert same(again.state, STATE)
    assert sorted(os.listdir(tmp_path / "algorithm")) == ["state.json", "state.safetensors"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(state=st.dictionaries(st.text(), plain))
def test_any_plain_state_comes_back(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    save_state(Algorithm(state), folder)
    again = Algorithm()
    load_state(again, folder)
    assert same(again.state, state)


def test_what_is_no_plain_value_is_named(tmp_path):
    for bad in (lambda: 1, object(), np.array([object()])):
        with pytest.raises(MedSegError, match="state/a/b"):
            save_state(Algorithm({"a": {"b": bad}}), tmp_path)


def test_pickles_are_never_run(tmp_path):
    folder, mark = tmp_path / "algorithm", tmp_path / "run"
    save_state(Algorithm(STATE), folder)
    evil = pickle.dumps(Evil(mark))
    for name in ("state.pkl", "algorithm_state.pkl", "class_and_ctor_args.pkl", "state.msgpck"):
        (folder / name).write_bytes(evil)
        (folder / "learner_group").mkdir(exist_ok=True)
        (folder / "learner_group" / name).write_bytes(evil)
    again = Algorithm()
    load_state(again, folder)
    assert same(again.state, STATE) and not mark.exists()
    for name in ("state.safetensors", "state.json"):
        (folder / name).write_bytes(evil)
        with pytest.raises(MedSegError, match="is damaged"):
            load_state(Algorithm(), folder)
    (folder / "state.json").unlink()
    with pytest.raises(MedSegError, match="pickles could run code: it is not read"):
        load_state(Algorithm(), folder)
    assert not mark.exists()


def test_damage_names_the_file_and_the_checkpoint_before(tmp_path):
    for step in (5, 9):
        save_state(Algorithm(STATE), tmp_path / f"step-{step:09d}" / "algorithm")
    folder = tmp_path / "step-000000009" / "algorithm"
    for name in ("state.json", "state.safetensors"):
        whole = (folder / name).read_bytes()
        for bad in (b"", whole[: len(whole) // 2], b"{}", b'{"format": 1}'):
            (folder / name).write_bytes(bad)
            with pytest.raises(MedSegError, match=rf"{name}.* the checkpoint before it is .*005"):
                load_state(Algorithm(), folder)
        (folder / name).write_bytes(whole)

    class Another(Algorithm):
        def set_state(self, state):
            raise KeyError("learner_group")

    with pytest.raises(MedSegError, match="not the state of this algorithm"):
        load_state(Another(), folder)
