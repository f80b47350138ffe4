"""dataset.json of the Medical Segmentation Decathlon and nnU-Net: names, channels, pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gym.cases.files import Damaged, Defect, read_json
from medseg_gym.cases.nifti.labels import read_names
from medseg_gym.cases.nifti.pairing import Pair
from medseg_gym.cases.volumes import volume_suffix
from medseg_gym.errors import CaseError

FILE = "dataset.json"


@dataclass
class Dataset:
    """Contents of a dataset.json.

    Args:
        path: The file, relative to the root.
        labels: Its "labels", or None.
        names: What they name, see `read_names`.
        channels: Names of the image channels.
        listed: Its "training" list of images and labels, or None.
        defects: What is wrong with it.
    """

    path: str
    labels: Any = None
    names: dict[str, tuple[int, ...]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    listed: list[Any] | None = None
    defects: list[Defect] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Folder of the file relative to the root, "" or with "/" at its end."""
        return self.path[: -len(FILE)]

    def pairs(self, volumes: set[str], channel: int) -> Iterator[Pair | Defect]:
        """List the pairs in the file.

        Args:
            volumes: Paths of all volumes relative to the root.
            channel: As in `pair_volumes`.

        Yields:
            Pairs, and a Defect for every entry that cannot be read or whose files are missing.
        """
        seen: set[str] = set()
        for number, entry in enumerate(self.listed or ()):
            place = f"training[{number}]"
            paths = []
            for role in ("image", "label"):
                name = entry.get(role) if isinstance(entry, dict) else None
                if not isinstance(name, str):
                    yield Defect(self.path, f"{role} must be a path, got {name!r}", place)
                elif (path := self._existing(name, volumes, channel)) is None:
                    yield Defect(self.path, f"{role} {name!r} is missing", place)
                else:
                    paths.append(path)
            if len(paths) == 2 and paths[1] in seen:
                yield Defect(self.path, f"label {paths[1]!r} is listed twice", place)
            elif len(paths) == 2:
                seen.add(paths[1])
                yield Pair(paths[0], paths[1])

    def _existing(self, name: str, volumes: set[str], channel: int) -> str | None:
        path = self.folder + name.removeprefix("./")
        suffix = volume_suffix(path)
        # nnU-Net 1 lists case.nii.gz where the files are case_0000.nii.gz, case_0001.nii.gz, ...
        with_channel = f"{path[: len(path) - len(suffix)]}_{channel:04d}{suffix}"
        return next((p for p in (path, with_channel) if p in volumes), None)


def read_dataset(path: Path, name: str) -> Dataset:
    """Read a dataset.json; what is wrong with it is in `defects`.

    Args:
        path: The file.
        name: Its path relative to the root.
    """
    dataset = Dataset(name)
    try:
        content = read_json(path, name)
        if not isinstance(content, dict):
            raise Damaged(name, f"must hold an object, got {type(content).__name__}")
    except Damaged as error:
        dataset.defects.append(error.defect)
        return dataset
    dataset.channels, dataset.listed = _channel_names(content), content.get("training")
    if not isinstance(dataset.listed, list | None):
        got = type(dataset.listed).__name__
        dataset.defects.append(Defect(name, f"training must be a list, got {got}; it is ignored"))
        dataset.listed = None
    if "labels" in content:
        try:
            dataset.names, dataset.labels = read_names(content["labels"]), content["labels"]
        except CaseError as error:
            dataset.defects.append(Defect(name, str(error)))
    return dataset


def _channel_names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the image channels of a dataset.json: "channel_names", or the older "modality"."""
    names = dataset.get("channel_names", dataset.get("modality"))
    if isinstance(names, str):
        return (names,)
    if isinstance(names, Mapping):
        return tuple(str(names[key]) for key in sorted(names, key=_number))
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _number(key: Any) -> tuple[int, str]:
    return (int(key), "") if str(key).isdigit() else (1 << 30, str(key))
