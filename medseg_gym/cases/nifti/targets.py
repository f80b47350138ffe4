"""Targets of a label volume, by value or by channel, and labels without a name."""

from __future__ import annotations

from collections.abc import Iterator

from medseg_gym.cases.files import Defect
from medseg_gym.cases.nifti.labels import Target, read_names, unnamed
from medseg_gym.cases.nifti.pairing import Pair
from medseg_gym.cases.nifti.scan import Scan
from medseg_gym.cases.nifti.value_names import Names


def find_targets(pair: Pair, scan: Scan, names: Names | None) -> Iterator[Target | Defect]:
    """List the targets of a label volume.

    Of several channels each is a target: channel n is label n where channel 0 is the background
    (1 exactly where no other channel has a label, as in one-hot labels), else label n + 1, or label
    n where channel 0 is given a name. Where a file names its segments itself, as .seg.nrrd does,
    its channels are mere layers.

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
        with_name = {place for segment in scan.segments for place in segment.parts}
        if free := set(scan.areas) - with_name:
            reason = "labels on slices that their file gives no name (labels= gives one)"
            yield Defect.counting(pair.label, reason, sum(len(scan.areas[p]) for p in free))
        return
    layered = scan.layers > 1 and not scan.segments
    first = _label_of_channel_0(scan, names) if layered else 0
    parts = _by_label(scan, first) if layered else _by_value(scan)
    if layered and not scan.background and scan.layers == scan.channels:
        wanted = range(first, first + scan.layers)
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
        zero = layered and not scan.background and not first
        named = read_names(names.labels, zero)
        yield from _named_targets(pair, scan, names, named, parts)


def _label_of_channel_0(scan: Scan, names: Names | None) -> int:
    if scan.background:
        return 0
    named: set[int] = set()
    if names is not None:
        for values in read_names(names.labels, zero=True).values():
            named.update(values)
    return 0 if 0 in named and max(named) < scan.layers else 1


def _by_label(scan: Scan, first: int) -> dict[int, list[tuple[int, int]]]:
    """Map the label of each channel to the channel and its value; without the background."""
    return {
        channel + first: [(channel, value)]
        for channel, value in scan.areas
        if channel or not scan.background
    }


def _by_value(scan: Scan) -> dict[int, list[tuple[int, int]]]:
    """Map each label value to its channels."""
    places: dict[int, list[tuple[int, int]]] = {}
    for channel, value in sorted(scan.areas, key=lambda place: place[1]):
        places.setdefault(value, []).append((channel, value))
    return places


def _unnamed_targets(pair: Pair, parts: dict[int, list[tuple[int, int]]]) -> Iterator[Target]:
    for label, places in parts.items():
        name = f"label {label}"
        if pair.target:
            name = pair.target if len(parts) == 1 else f"{pair.target} {label}"
        yield Target(name, tuple(places))


def _named_targets(
    pair: Pair,
    scan: Scan,
    names: Names,
    named: dict[str, tuple[int, ...]],
    parts: dict[int, list[tuple[int, int]]],
) -> Iterator[Target | Defect]:
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
        what = f"label {label}"
        if scan.layers > 1:
            what += f" (channel {parts[label][0][0]} of 0 to {scan.layers - 1})"
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
