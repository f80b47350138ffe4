"""Assign groups to splits where the data does not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from medseg_gym.cases.source import SPLITS
from medseg_gym.errors import CaseError

DEFAULT_SHARES = (0.7, 0.1, 0.2)

_NAMES = {
    **{name: "train" for name in ("train", "training", "tr")},
    **{name: "val" for name in ("val", "valid", "validation", "dev")},
    **{name: "test" for name in ("test", "testing", "ts")},
}


def split_of_group(group: str, shares: tuple[float, float, float] = DEFAULT_SHARES) -> str:
    """Choose a split by the hash of the group alone: other groups coming or going change nothing.

    Args:
        group: Patient, volume or image.
        shares: Shares of train, val and test; they sum to 1.
    """
    digest = hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    at = int.from_bytes(digest, "big") / 2**64
    if at < shares[0]:
        return "train"
    return "val" if at < shares[0] + shares[1] else "test"


def parse_shares(text: str) -> tuple[float, float, float]:
    """Read "70,10,20": parts for train, val and test, in any unit.

    Raises:
        CaseError: Not three numbers of at least 0 with a positive sum.
    """
    try:
        train, val, test = (float(share) for share in text.split(","))
        total = train + val + test
        if min(train, val, test) < 0 or not 0 < total < float("inf"):
            raise ValueError
    except ValueError:
        raise CaseError(
            f"splits={text!r}: give three parts for {', '.join(SPLITS)}, for example 70,10,20"
        ) from None
    return train / total, val / total, test / total


def split_named_once(names: Iterable[str]) -> str:
    """Return the split that names of files or folders agree on, or ""."""
    splits = {split for name in names if (split := split_named(name))}
    return splits.pop() if len(splits) == 1 else ""


def split_named(name: str) -> str:
    """Return the split in the name of a file or folder ("imagesTr", "test.json"), or ""."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    splits = {_NAMES[word] for word in words if word in _NAMES}
    return splits.pop() if len(splits) == 1 else ""
