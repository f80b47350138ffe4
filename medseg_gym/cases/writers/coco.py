"""Write COCO files of instances, so that reading them back gives equal cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.cases.writers.case_writer import replace_file
from medseg_gym.cases.writers.journal import JournalWriter, object_fields


class CocoWriter(JournalWriter):
    """Writer of `annotations/instances_<split>.json` and the images under `<split>/`.

    Each case is an annotation with compressed run lengths, which hold any mask as it is; its target
    is the category. Under "medseg_gym" lie the fields that COCO has no place for.
    """

    @property
    def final(self) -> Path:
        """The annotations of the split."""
        return self.out / "annotations" / f"instances_{self.split}.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The images."""
        return (self.out / self.split,)

    def resume(self) -> int:
        """See `JournalWriter.resume`; pycocotools must be there."""
        require("coco:", "pycocotools", extra="coco")
        return super().resume()

    def line_of(self, case: Case) -> dict[str, Any]:
        """Write the image, and return what the annotation says."""
        from pycocotools import mask as masks

        runs = masks.encode(np.asfortranarray(case.mask, np.uint8))
        return {
            "file_name": self.write_image(self.out / self.split, case),
            "size": [case.height, case.width],
            "counts": runs["counts"].decode("ascii"),
            "area": int(masks.area(runs)),
            "bbox": [float(side) for side in masks.toBbox(runs)],
            EXTRA: object_fields(case),
        }

    def close(self, lines: list[dict[str, Any]]) -> None:
        """Write the JSON; categories are the targets, in order, the same for the same targets."""
        words = sorted({line[EXTRA]["target"] for line in lines})
        categories = {text: number for number, text in enumerate(words, 1)}
        images: dict[str, dict[str, Any]] = {}
        annotations = []
        for number, line in enumerate(lines, 1):
            name, (height, width) = line["file_name"], line["size"]
            fresh = {"id": len(images) + 1, "file_name": name, "height": height, "width": width}
            annotations.append(
                {
                    "id": number,
                    "image_id": images.setdefault(name, fresh)["id"],
                    "category_id": categories[line[EXTRA]["target"]],
                    "segmentation": {"size": line["size"], "counts": line["counts"]},
                    "area": line["area"],
                    "bbox": line["bbox"],
                    "iscrowd": 0,
                    EXTRA: line[EXTRA],
                }
            )
        document = {
            "info": {"description": "written by medseg cases convert", EXTRA: self.identity},
            "licenses": [],
            "images": list(images.values()),
            "annotations": annotations,
            "categories": [
                {"id": number, "name": text, "supercategory": ""}
                for text, number in categories.items()
            ],
        }
        replace_file(self.final, json.dumps(document).encode())

    def finished(self) -> tuple[str, int]:
        """See `JournalWriter.finished`."""
        document = json.loads(self.final.read_bytes())
        return document["info"][EXTRA], len(document["annotations"])
