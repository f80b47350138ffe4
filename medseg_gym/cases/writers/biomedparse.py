"""Write the BiomedParse format, so that reading it back gives equal cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.writers.case_writer import case_fields, replace_file, slug
from medseg_gym.cases.writers.journal import JournalWriter, digest_of


class BiomedParseWriter(JournalWriter):
    """Writer of `<split>.json`, `<split>/` and `<split>_mask/`.

    Cases that share an image share its file. An annotation has the fields that BiomedParse's own
    tools read, and under "medseg_gym" those that the format has no place for.
    """

    @property
    def final(self) -> Path:
        """The annotations of the split."""
        return self.out / f"{self.split}.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Images and masks."""
        return self.out / self.split, self.out / f"{self.split}_mask"

    def line_of(self, case: Case) -> dict[str, Any]:
        """Write image and mask, and return the annotation."""
        image = self.write_image(self.out / self.split, case)
        stem = image[: -len(".png")]
        mask = f"{stem}_{slug(case.target.replace(' ', '+'))}-{digest_of(case.key)}.png"
        replace_file(self.out / f"{self.split}_mask" / mask, png_bytes(case.mask))
        return {
            "file_name": image,
            "mask_file": mask,
            "height": case.height,
            "width": case.width,
            "sent": case.target,
            **case_fields(case),
        }

    def close(self, lines: list[dict[str, Any]]) -> None:
        """Write `<split>.json`."""
        images: dict[str, dict[str, Any]] = {}
        annotations = []
        for number, line in enumerate(lines):
            size = {side: line.pop(side) for side in ("height", "width")}
            name, mask, text = line.pop("file_name"), line.pop("mask_file"), line.pop("sent")
            image = images.setdefault(name, {"id": len(images), "file_name": name, **size})
            annotations.append(
                {
                    "id": number,
                    "ann_id": number,
                    "image_id": image["id"],
                    "file_name": name,
                    "mask_file": mask,
                    "split": self.split,
                    "iscrowd": 0,
                    "sentences": [{"raw": text, "sent": text, "sent_id": number}],
                    "sent_ids": [number],
                    EXTRA: line,
                }
            )
        document = {
            "info": {"description": "written by medseg cases convert", EXTRA: self.identity},
            "images": list(images.values()),
            "annotations": annotations,
        }
        replace_file(self.final, json.dumps(document).encode())

    def finished(self) -> tuple[str, int]:
        """See `JournalWriter.finished`."""
        document = json.loads(self.final.read_bytes())
        return document["info"][EXTRA], len(document["annotations"])
