"""Write XML of CVAT for images 1.1, so that reading it back gives equal cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # writes; what strangers wrote is read by defusedxml

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.cases.writers.case_writer import replace_file
from medseg_gym.cases.writers.journal import MarkedWriter, object_fields


class CvatWriter(MarkedWriter):
    """Writer of `<split>.xml` and `images/<split>/`.

    Each case is a mask with run lengths; its target is the label. The label's attribute
    "medseg_gym", which the meta data declare, holds the fields that CVAT has no place for.
    """

    @property
    def folders(self) -> tuple[Path, ...]:
        """Images."""
        return (self.out / "images" / self.split, self.out / f"{self.split}.xml")

    def resume(self) -> int:
        """See `JournalWriter.resume`; defusedxml, which reads it back, must be there."""
        require("cvat:", "defusedxml", extra="cvat")
        return super().resume()

    def line_of(self, case: Case) -> dict[str, Any]:
        """Write the image, and return mask and fields."""
        return {
            "image": self.write_image(self.out / "images" / self.split, case),
            "size": [case.height, case.width],
            "mask": _mask(case.mask),
            EXTRA: object_fields(case),
        }

    def write_files(self, lines: list[dict[str, Any]]) -> None:
        """Write the XML of the split."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        labels = ElementTree.SubElement(task, "labels")
        for text in sorted({_plain(line[EXTRA]["target"]) for line in lines}):
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = text
            attributes = ElementTree.SubElement(label, "attributes")
            attribute = ElementTree.SubElement(attributes, "attribute")
            for key, value in (("name", EXTRA), ("mutable", "False"), ("input_type", "text")):
                ElementTree.SubElement(attribute, key).text = value
        images: dict[str, ElementTree.Element] = {}
        for line in lines:
            name, (height, width) = line["image"], line["size"]
            if name not in images:
                fields = {"id": str(len(images)), "name": f"{self.split}/{name}"}
                fields |= {"subset": self.split, "width": str(width), "height": str(height)}
                images[name] = ElementTree.SubElement(root, "image", fields)
            words = {"label": _plain(line[EXTRA]["target"]), "source": "file", "z_order": "0"}
            mask = ElementTree.SubElement(images[name], "mask", {**words, **line["mask"]})
            kept = ElementTree.SubElement(mask, "attribute", {"name": EXTRA})
            kept.text = json.dumps(line[EXTRA])
        ElementTree.indent(root)
        content = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        replace_file(self.out / f"{self.split}.xml", content)


def _mask(mask: np.ndarray) -> dict[str, str]:
    """Box and run lengths, row by row, background first."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = (int(one[0]) if one.size else 0 for one in (rows, columns))
    part = mask[top : int(rows[-1]) + 1 if rows.size else 1]
    part = part[:, left : int(columns[-1]) + 1 if columns.size else 1]
    flat = np.concatenate([[False], part.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], edges, [part.size]]))
    box = {"left": left, "top": top, "width": part.shape[1], "height": part.shape[0]}
    return {"rle": ", ".join(map(str, runs)), **{key: str(value) for key, value in box.items()}}


def _plain(text: str) -> str:
    """Return a label without characters that XML does not have."""
    kept = "".join(c if c.isprintable() and ord(c) < 0xFFFE else " " for c in text)
    return " ".join(kept.split()) or "target"
