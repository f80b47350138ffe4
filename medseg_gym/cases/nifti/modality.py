"""Which modality a volume is, as far as its data says: channel names, a sidecar, its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "CT": frozenset("ct cbct cect ncct computed".split()),
    "MRI": frozenset(
        "mr mri magnetic t1 t1w t1c t1ce t1gd t1n t1post t2 t2w t2f flair adc dwi pd pdw swi bold "
        "cine lge".split()
    ),
    "ultrasound": frozenset("us ultrasound echo".split()),
    "X-ray": frozenset("xray cr dx radiograph".split()),
}
_UNMISTAKABLE = frozenset("ct cbct mr mri t1 t1w t1c t1ce t1gd t2 t2w flair adc dwi".split())


def named_modality(text: str) -> str:
    """Modality that a channel name or DICOM-like code speaks of ("CT", "FLAIR", "MR"), or ""."""
    words = re.split(r"[^a-z0-9]+", text.lower().replace("x-ray", "xray"))
    return next((m for m, known in _WORDS.items() if known & set(words)), "")


def modality_of_stem(stem: str) -> str:
    """Modality that a file name tells beyond doubt ("case_7_flair"), or ""."""
    words = [w for w in re.split(r"[^a-z0-9]+", stem.lower()) if w in _UNMISTAKABLE]
    return named_modality(" ".join(words)) if words else ""


def channel_names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Image channels of a dataset.json: "channel_names", or the older "modality"."""
    names = dataset.get("channel_names", dataset.get("modality"))
    if isinstance(names, str):
        return (names,)
    if isinstance(names, Mapping):
        return tuple(str(names[key]) for key in sorted(names, key=_number))
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _number(key: Any) -> tuple[int, str]:
    return (int(key), "") if str(key).isdigit() else (1 << 30, str(key))
