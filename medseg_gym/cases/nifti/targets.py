"""What there is to segment in a label volume, by value or by channel, and what has no name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medseg_gym.cases.files import Defect
from medseg_gym.cases.nifti.labels import Target, read_names, unnamed
from medseg_gym.cases.nifti.pairing import Pair
from medseg_gym.cases.nifti.scan import Scan


@dataclass(frozen=True)
class Names:
    """What the label values are called.

    Args:
        labels: In a form that `read_names` takes.
        whose: The option or file that says so.
    """

    labels: Any
    whose: str


def find_targets(pair: Pair, scan: Scan, names: Names | None) -> Iterator[Target | Defect]:
    """List the targets of a label volume.

    Of several channels each is a target: channel n is label n where channel 0 is the background
    (1 exactly where no other channel has a label, as in one-hot labels), else label n + 1. Where a
    file names its segments itself, as .seg.nrrd does, its channels are mere layers.

    Args:
        pair: The volume and its image.
        scan: What was found in them.
        names: What its values are called; None where nothing says so but the file itself.

    Yields:
        Targets, and Defects for labels without a name and for channels that could be time steps.
    """
    if pair.organ:
        if scan.layers > 1:
            cause = f"has {scan.layers} values per voxel; the file of one organ must have one"
            yield Defect(pair.label, cause)
            return
        yield Target(pair.organ.replace("_", " "), ())
        return
    if scan.segments and names is None:
        yield from scan.segments
        named = {part for segment in scan.segments for part in segment.parts}
        if free := set(scan.areas) - named:
            reason = "labels on slices that their file gives no name (labels= gives one)"
            yield Defect.counting(pair.label, reason, sum(len(scan.areas[p]) for p in free))
        return
    layered = scan.layers > 1 and not scan.segments
    parts = _by_label(scan, layered)
    if layered and not scan.background and scan.layers == scan.channels:
        wanted = set(range(1, scan.layers + 1))
        if names is None or unnamed(wanted, names.labels):
            yield Defect(
                pair.label,
                f"has {scan.layers} values per voxel, and so has its image: a time step each, or a "
                "target each? Store time steps as a file each; name targets with labels=1:NAME,"
                "2:NAME,... for all channels",
            )
            return
    if names is None:
        yield from _unnamed_targets(pair, parts)
    else:
        yield from _named_targets(pair, scan, names, parts, layered)


def _by_label(scan: Scan, layered: bool) -> dict[int, list[tuple[int, int]]]:
    """Label value or number of the channel -> where it is."""
    found: dict[int, list[tuple[int, int]]] = {}
    for channel, value in scan.areas:
        label = channel + (not scan.background) if layered else value
        if label:  # channel 0 may be the background
            found.setdefault(label, []).append((channel, value))
    return dict(sorted(found.items()))


def _unnamed_targets(pair: Pair, parts: dict[int, list[tuple[int, int]]]) -> Iterator[Target]:
    for label, places in parts.items():
        name = f"label {label}"
        if pair.target:
            name = pair.target if len(parts) == 1 else f"{pair.target} {label}"
        yield Target(name, tuple(places))


def _named_targets(
    pair: Pair, scan: Scan, names: Names, parts: dict[int, list[tuple[int, int]]], layered: bool
) -> Iterator[Target | Defect]:
    named = read_names(names.labels)
    for name, values in named.items():
        places = [place for value in dict.fromkeys(values) for place in parts.get(value, ())]
        if len({channel for channel, _ in places}) > 1 and not scan.disjoint:
            yield Defect(
                pair.label,
                f"{names.whose} joins channels to {name!r} that overlap; name each by itself",
            )
        elif places:
            yield Target(name, tuple(places))
    without = unnamed(parts, names.labels)
    for label in without:
        what = f"label {label}" + (f" (channel {parts[label][0][0]})" if layered else "")
        yield Defect(
            pair.label,
            f"{what} occurs, but {names.whose} does not name it; labels= names it or, as "
            f"{label}:ignore, leaves it out",
        )
    used = {value for values in named.values() for value in values}
    ignored = [label for label in parts if label not in used and label not in without]
    reason = "labels on slices that are called ignore (labels= changes that)"
    count = sum(len(scan.areas[place]) for label in ignored for place in parts[label])
    if count:
        yield Defect.counting(pair.label, reason, count)
