"""Write files of LabelMe, so that reading them back gives equal cases."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn import outlines
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.writers.case_writer import replace_file
from medseg_gym.cases.writers.journal import MarkedWriter, object_fields


class LabelMeWriter(MarkedWriter):
    """Writer of `<split>/`: a PNG and a JSON file for each image.

    A mask without holes becomes polygons that fill to that very mask, one with holes a shape of
    type mask; the shapes of a case have one `group_id`.
    """

    @property
    def folders(self) -> tuple[Path, ...]:
        """Images and JSON files."""
        return (self.out / self.split,)

    def line_of(self, case: Case) -> dict[str, Any]:
        """Write the image, and return shapes and fields."""
        return {
            "image": self.write_image(self.out / self.split, case),
            "size": [case.height, case.width],
            "drawn": _shapes(case.mask),
            **object_fields(case),
        }

    def write_files(self, lines: list[dict[str, Any]]) -> None:
        """Write the JSON file of each image."""
        documents: dict[str, dict[str, Any]] = {}
        for line in lines:
            name, (height, width), drawn = line.pop("image"), line.pop("size"), line.pop("drawn")
            document = documents.setdefault(
                name,
                {
                    "version": "5.5.0",
                    "flags": {},
                    "shapes": [],
                    "imagePath": name,
                    "imageData": None,
                    "imageHeight": height,
                    "imageWidth": width,
                    EXTRA: [],
                },
            )
            group = len(document[EXTRA])
            for shape in drawn:
                both = {"label": line["target"], "group_id": group, "description": "", "flags": {}}
                document["shapes"].append({**both, **shape})
            document[EXTRA].append({"group_id": group, "shapes": len(drawn), **line})
        for name, document in documents.items():
            file = self.out / self.split / f"{Path(name).stem}.json"
            replace_file(file, json.dumps(document).encode())


def _shapes(mask: np.ndarray) -> list[dict[str, Any]]:
    parts = outlines(mask)
    if all(len(rings) == 1 for rings in parts):
        return [
            {
                "shape_type": "polygon",
                "points": [[x, y] for x, y in zip(ring[::2], ring[1::2], strict=True)],
                "mask": None,
            }
            for (ring,) in parts
        ]
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = (int(i) for i in (rows[0], rows[-1], columns[0], columns[-1]))
    png = png_bytes(mask[top : bottom + 1, left : right + 1])
    return [
        {
            "shape_type": "mask",
            "points": [[left, top], [right, bottom]],
            "mask": base64.b64encode(png).decode("ascii"),
        }
    ]
