"""Group and split of the cases of a data set, by the options `group` and `splits`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from medseg_gym.cases.files.defects import Defect
from medseg_gym.cases.files.records import Record
from medseg_gym.cases.files.spec import FileOptions, FileSpec
from medseg_gym.cases.files.splits import DEFAULT_SHARES, parse_shares, split_of_group


class Grouping:
    """Rule that completes records with what the format leaves open: group, split and modality.

    Args:
        spec: Path and options.

    Raises:
        CaseError: An option cannot be used.
    """

    def __init__(self, spec: FileSpec) -> None:
        self.spec = spec
        options = spec.read(FileOptions)
        self._shares = parse_shares(options.splits) if "splits" in spec.options else DEFAULT_SHARES
        self._modality = options.modality
        self._pattern: re.Pattern[str] | None = None
        if options.group:
            try:
                self._pattern = re.compile(options.group)
            except re.error as error:
                raise spec.wrong("group", f"not a regular expression: {error}") from error

    def complete(self, record: Record) -> Record | Defect:
        """Return the record with its group, split and modality.

        Args:
            record: A record as a format lists it.

        Returns:
            A Defect where the option `group` matches nothing in the group.
        """
        group = record.group or record.files[0]
        if self._pattern is not None:
            match = self._pattern.search(group)
            if match is None:
                cause = f"option group={self._pattern.pattern!r} matches nothing in {group!r}"
                return Defect(record.files[0], cause, key=record.key)
            group = match[1] if match.re.groups else match[0]
        split = record.split or split_of_group(group, self._shares)
        modality = self._modality or record.modality
        return replace(record, group=group, split=split, modality=modality)


def straddling(records: Iterable[Record]) -> Iterator[Defect]:
    """Note that groups lie in more than one split, where some do.

    Args:
        records: Completed records of all splits.

    Yields:
        At most one note.
    """
    first: dict[str, Record] = {}
    seen: Counter[str] = Counter()
    for record in records:
        other = first.setdefault(record.group, record)
        if other.split != record.split:
            seen[record.group] += 1
    if seen:
        group = next(iter(seen))
        yield Defect(
            "",
            f"{len(seen)} groups lie in more than one split, the first is {group!r}: what was "
            "trained on is tested on; see the option group",
            note=True,
        )
