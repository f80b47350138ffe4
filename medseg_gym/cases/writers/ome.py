"""Write OME-Zarr (NGFF 0.4), so that reading it back gives equal cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.cases.writers.case_writer import slug
from medseg_gym.cases.writers.journal import MarkedWriter, digest_of, object_fields
from medseg_gym.errors import CaseError
from medseg_gym.storage.atomic_write import atomic_write


class OmeWriter(MarkedWriter):
    """Writer of `<split>/NAME.zarr`: an image with a label image for each case.

    NGFF 0.4 is what both generations of Zarr libraries read. The attributes of a label image hold,
    under "medseg_gym", what the format has no place for.
    """

    @property
    def folders(self) -> tuple[Path, ...]:
        """The images."""
        return (self.out / self.split,)

    def resume(self) -> int:
        """See `JournalWriter.resume`; zarr must be there."""
        require("ome:", "zarr", extra="ome")
        return super().resume()

    def line_of(self, case: Case) -> dict[str, Any]:
        """Write the image unless it is there, and its label image."""
        store = self.out / self.split / f"{slug(case.group)}-{case.content_hash[:12]}.zarr"
        if not (store / ".zattrs").exists():
            scale = [1.0, *(case.spacing or (1.0, 1.0))]
            axes = [{"name": "c", "type": "channel"}, *_space(case)]
            _write_group(store, np.moveaxis(case.image, 2, 0), axes, scale, {})
        name = f"{slug(case.target)}-{digest_of(case.key)}"
        attributes = {"image-label": {"version": "0.4", "source": {"image": "../../"}}}
        scale = list(case.spacing or (1.0, 1.0))
        mask = case.mask.astype(np.uint8)
        _write_group(store / "labels" / name, mask, _space(case), scale, attributes)
        return {"store": store.name, "label": name, **object_fields(case)}

    def write_files(self, lines: list[dict[str, Any]]) -> None:
        """Write the lists of label images, and what is kept of each."""
        names: dict[str, list[str]] = {}
        for line in lines:
            store, name = self.out / self.split / line.pop("store"), line.pop("label")
            names.setdefault(store.name, []).append(name)
            file = store / "labels" / name / ".zattrs"
            _write_json(file, {**_read_json(file), EXTRA: line})
        for of_store, labels in names.items():
            folder = self.out / self.split / of_store / "labels"
            _write_json(folder / ".zgroup", {"zarr_format": 2})
            _write_json(folder / ".zattrs", {"labels": labels})


def _space(case: Case) -> list[dict[str, str]]:
    unit = {"unit": "millimeter"} if case.spacing else {}
    return [{"name": axis, "type": "space", **unit} for axis in "yx"]


def _write_group(
    folder: Path, array: np.ndarray, axes: list[Any], scale: list[float], attributes: dict[str, Any]
) -> None:
    """Write a group with one resolution; its .zattrs last, without which there is no group."""
    import zarr

    kind: dict[str, Any] = {"zarr_format": 2} if zarr.__version__ >= "3" else {}
    made = zarr.open_array(
        str(folder / "0"),
        mode="w",
        shape=array.shape,
        chunks=(*(1 for _ in array.shape[:-2]), *(min(side, 1024) for side in array.shape[-2:])),
        dtype=array.dtype,
        dimension_separator="/",
        **kind,
    )
    made[...] = array
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    scales = [{"version": "0.4", "axes": axes, "datasets": [dataset]}]
    _write_json(folder / ".zgroup", {"zarr_format": 2})
    _write_json(folder / ".zattrs", {"multiscales": scales, **attributes})


def _write_json(file: Path, content: Any) -> None:
    atomic_write(file, json.dumps(content).encode(), CaseError, durable=False)


def _read_json(file: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(file.read_bytes())
    return {key: value for key, value in whole.items() if key != EXTRA}
