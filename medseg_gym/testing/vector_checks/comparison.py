"""Copying, comparing, slicing and spoiling what an environment returns, whatever its nesting."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np


def snapshot(value: Any) -> Any:
    """Returns a copy that shares no array, list or dict with `value`."""
    if value is None or isinstance(value, str | bool | int | float | np.generic):
        return value
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [snapshot(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [snapshot(item) for item in value]
    if isinstance(value, np.ndarray):
        copied = value.copy()
        if value.dtype == object:
            for index in np.ndindex(value.shape):
                copied[index] = snapshot(value[index])
        return copied
    try:
        return copy.deepcopy(value)
    except Exception:  # an info may carry a lock or a handle: it can only be kept as it is
        return value


def difference(
    expected: object, actual: object, *, atol: float = 0.0, loose: bool = False, path: str = ""
) -> str | None:
    """Says where two nested values first differ, or returns None if they do not.

    Args:
        expected: Nested dicts, tuples, lists, arrays, scalars, strings.
        actual: The same structure.
        atol: Absolute tolerance for floats. Integers, booleans and strings are compared exactly;
            NaN equals NaN.
        loose: Compare numbers by value, in the dtype of `found` (a Python float against the
            float32 entry of an array), instead of asking for equal dtypes.
        path: Prefix of the place named in the answer.
    """
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if expected.keys() != actual.keys():
            return f"{path} has keys {sorted(map(str, actual))}, not {sorted(map(str, expected))}"
        items = [(f"{path}[{key!r}]", expected[key], actual[key]) for key in expected]
    elif isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        if len(expected) != len(actual):
            return f"{path} has length {len(actual)}, not {len(expected)}"
        items = [
            (f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(expected, actual, strict=True))
        ]
    else:
        a, b = _as_array(expected), _as_array(actual)
        if a is not None and b is not None:
            return _array_difference(a, b, atol, loose, path)
        if isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray):  # of objects
            if expected.shape != actual.shape:
                return f"{path} has shape {actual.shape}, not {expected.shape}"
            items = [
                (f"{path}{list(index)}", expected[index], actual[index])
                for index in np.ndindex(expected.shape)
            ]
        else:
            same = _opaque_equal(expected, actual)
            return None if same else f"{path} is {_short(actual)}, not {_short(expected)}"
    for place, a, b in items:
        text = difference(a, b, atol=atol, loose=loose, path=place)
        if text is not None:
            return text
    return None


def _as_array(value: object) -> np.ndarray | None:
    """Numbers and what converts to an array of numbers or strings; None for anything else."""
    if (
        value is None
        or isinstance(value, str)
        or not (isinstance(value, bool | int | float | complex) or hasattr(value, "__array__"))
    ):
        return None
    try:
        array = np.asarray(value)
    except Exception:  # a tensor on a device does not convert
        return None
    return None if array.dtype == object else array


def _array_difference(
    expected: np.ndarray, actual: np.ndarray, atol: float, loose: bool, path: str
) -> str | None:
    if expected.shape != actual.shape:
        return f"{path} has shape {actual.shape}, not {expected.shape}"
    if expected.dtype != actual.dtype:
        if not loose:
            return f"{path} has dtype {actual.dtype}, not {expected.dtype}"
        if expected.dtype.kind in "fc" and actual.dtype.kind in "fc":
            with np.errstate(over="ignore"):
                expected = expected.astype(actual.dtype)
    same = np.asarray(expected == actual)
    if expected.dtype.kind in "fc" and actual.dtype.kind in "fc":
        with np.errstate(invalid="ignore", over="ignore"):
            same = same | (np.isnan(expected) & np.isnan(actual))
            if atol > 0:
                same = same | (np.abs(expected - actual) <= atol)
    if same.all():
        return None
    index = tuple(int(i) for i in np.argwhere(~same)[0])
    place = f"{path}{list(index)}" if index else path
    many = f" ({int((~same).sum())} of {same.size} entries differ)" if same.size > 1 else ""
    return f"{place} is {actual[index]!s}, not {expected[index]!s}{many}"


def _opaque_equal(expected: object, actual: object) -> bool:
    if isinstance(expected, str) and isinstance(actual, str):
        return str(expected) == str(actual)
    if type(expected) is not type(actual):
        return False
    if type(expected).__eq__ is object.__eq__:  # identity says nothing across two runs
        return True
    try:
        return bool(expected == actual)
    except Exception:
        return True


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def slot_value(space: gym.Space, batched: Any, slot: int) -> Any:
    """One slot's part of a batch; `space` is the space of a single environment."""
    if isinstance(space, gym.spaces.Dict):
        return {key: slot_value(sub, batched[key], slot) for key, sub in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        pairs = zip(space.spaces, batched, strict=True)
        return tuple(slot_value(sub, value_part, slot) for sub, value_part in pairs)
    return batched[slot]


def slots_in(mask: Any) -> list[int]:
    """The slots for which a (n,) bool mask is True."""
    return [int(slot) for slot in np.flatnonzero(mask)]


def is_mask(infos: Mapping[str, object], key: str) -> bool:
    """Return True if `key` is the mask `_name` of an entry `name` (and not an entry of its own)."""
    return key.startswith("_") and key[1:] in infos


def slot_info(infos: Mapping[str, Any], slot: int) -> dict[str, Any]:
    """One slot's info, read as gymnasium's `DictInfoToList` does: no mask means every slot."""
    info: dict[str, Any] = {}
    for key, value in infos.items():
        if is_mask(infos, key) or not infos.get(f"_{key}", _EVERYWHERE)[slot]:
            continue
        info[key] = slot_info(value, slot) if isinstance(value, Mapping) else value[slot]
    return info


class _Everywhere:
    def __getitem__(self, slot: int) -> bool:
        return True


_EVERYWHERE = _Everywhere()


def space_mismatch(space: gym.Space, value: object, path: str) -> str | None:
    """Says why `value` is not in `space` (dtypes exactly), or returns None if it is."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(value, dict) or value.keys() != space.spaces.keys():
            keys = sorted(value) if isinstance(value, dict) else type(value).__name__
            return f"{path} has {keys}, not a dict with the keys {sorted(space.spaces)}"
        parts = [(f"{path}[{key!r}]", sub, value[key]) for key, sub in space.spaces.items()]
    elif isinstance(space, gym.spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            return f"{path} is {_short(value)}, not a tuple of {len(space.spaces)}"
        pairs = enumerate(zip(space.spaces, value, strict=True))
        parts = [(f"{path}[{i}]", sub, value_part) for i, (sub, value_part) in pairs]
    else:
        fixed = gym.spaces.Box | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary
        if isinstance(space, fixed):
            if not isinstance(value, np.ndarray):
                return f"{path} is a {type(value).__name__}, not a numpy array"
            if value.shape != space.shape or value.dtype != space.dtype:
                return (
                    f"{path} has shape {value.shape} and dtype {value.dtype}, "
                    f"not {space.shape} and {space.dtype}"
                )
        inside = space.contains(value)
        return None if inside else f"{path} = {_short(value)} lies outside {_short(space)}"
    for place, sub, value_part in parts:
        text = space_mismatch(sub, value_part, place)
        if text is not None:
            return text
    return None


def scribble(value: object) -> None:
    """Overwrites every writable array, list and dict inside `value`, in place."""
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            for item in value.flat:
                scribble(item)
        if not value.flags.writeable:
            return
        if value.dtype.kind in "biu":
            np.invert(value, out=value)
        elif value.dtype.kind in "fc":
            with np.errstate(invalid="ignore", over="ignore"):
                np.subtract(-7, value, out=value)
        elif value.dtype.kind in "OUS":
            value.fill("scribbled")
    elif isinstance(value, Mapping):
        for item in value.values():
            scribble(item)
        if isinstance(value, dict):
            value.clear()
    elif isinstance(value, list | tuple):
        for item in value:
            scribble(item)
        if isinstance(value, list):
            value.clear()
