"""Names of the values of a label volume: dataset.json in both forms, or a JSON of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gym.cases.files import read_json
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.volumes.header import Segment
from medseg_gym.errors import CaseError

_BACKGROUND = ("background", "bg", "unlabeled", "clear label")
_IGNORED = "ignore"  # nnU-Net's name for voxels that nobody labelled


@dataclass(frozen=True)
class Target:
    """One thing to segment in a label volume.

    Args:
        name: What it is called.
        parts: What belongs to it: (channel of the voxels, label value above 0). No parts stand
            for every label of the volume.
    """

    name: str
    parts: tuple[tuple[int, int], ...]


def read_names(labels: Any, zero: bool = False) -> dict[str, tuple[int, ...]]:
    """Read the "labels" of a dataset.json: name -> label values.

    Args:
        labels: `{"0": "background", "1": "liver"}` (Medical Segmentation Decathlon, nnU-Net 1),
            `{"background": 0, "liver": 1, "whole tumour": [1, 2]}` (nnU-Net 2) or
            `["background", "liver"]`. Background and nnU-Net's "ignore" are left out.
        zero: 0 is a label too, if it is not called background.

    Raises:
        CaseError: Another form, a name twice, or nothing but background.
    """
    if isinstance(labels, list):
        labels = {str(value): name for value, name in enumerate(labels)}
    if not isinstance(labels, Mapping) or not labels:
        got = str(labels)[:80]
        raise CaseError(f"labels must map values to names or names to values, got {got}")
    values_of: dict[str, tuple[int, ...]] = {}
    for key, entry in labels.items():
        if isinstance(entry, str) and _is_value(key):
            name, given = entry, [key]
        else:
            name = str(key)
            given = entry if isinstance(entry, list) else [entry]
            if not given or not all(_is_value(v) for v in given):
                raise CaseError(f"labels[{key!r}] must be a name or whole numbers, got {entry!r}")
        values = tuple(int(v) for v in given)
        name = name.strip()
        if name.lower() == _IGNORED or (name.lower() in _BACKGROUND and 0 in values):
            continue
        if not name or name in values_of:
            raise CaseError(
                f"labels: the name {name!r} " + ("appears twice" if name else "is empty")
            )
        if min(values) < (0 if zero else 1):
            if values == (0,):
                continue  # a background by another name
            raise CaseError(f"labels[{key!r}]: label values must be above 0, got {list(values)}")
        values_of[name] = values
    if not values_of:
        raise CaseError("labels names nothing but background")
    return values_of


def segment_targets(segments: Iterable[Segment]) -> tuple[Target, ...]:
    """Return the targets that a label volume names itself."""
    return tuple(Target(s.name, ((s.channel, s.value),)) for s in segments)


def unnamed(values: Iterable[int], labels: Any) -> list[int]:
    """Return label values that "labels" does not name, not even as background or "ignore".

    Args:
        values: Values that occur.
        labels: As in `read_names`, which has accepted it.
    """
    named: set[int] = set()
    pairs = enumerate(labels) if isinstance(labels, list) else labels.items()
    for key, entry in pairs:
        if isinstance(entry, str) and _is_value(key):
            named.add(int(key))
        else:
            named.update(int(v) for v in (entry if isinstance(entry, list) else [entry]))
    return sorted(set(values) - named)


def inline_labels(text: str) -> dict[str, str]:
    """Read "1:liver,2:tumour" into the older form of "labels".

    Raises:
        CaseError: Not pairs of a whole number and a name.
    """
    names = {}
    for item in text.split(","):
        value, _, name = item.partition(":")
        if not (_is_value(value) and name.strip()):
            raise CaseError("give a .json file, or VALUE:NAME,VALUE:NAME")
        names[value.strip()] = name
    return names


def labels_option(spec: FileSpec) -> Any:
    """Read the option `labels`: a .json file, or pairs of a value and a name.

    Args:
        spec: Path and options; a file is looked for under the path, then in the working folder.

    Returns:
        Labels in a form that `read_names` takes; None without the option.

    Raises:
        CaseError: They cannot be used.
    """
    text = spec.options.get("labels", "")
    if not text:
        return None
    try:
        if text.lower().endswith(".json"):
            path = next((p for p in (spec.path / text, Path(text)) if p.exists()), Path(text))
            labels = read_json(path.expanduser(), text)
            if isinstance(labels, dict) and isinstance(labels.get("labels"), dict | list):
                labels = labels["labels"]
        else:
            labels = inline_labels(text)
        read_names(labels)
    except CaseError as error:
        raise spec.wrong("labels", str(error)) from error
    return labels


def _is_value(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) or (isinstance(value, str) and value.strip().isdigit())
