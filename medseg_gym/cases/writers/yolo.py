"""Write data sets of YOLO, so that reading them back gives equal cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn import single_outlines
from medseg_gym.cases.source import SPLITS
from medseg_gym.cases.writers.case_writer import replace_file
from medseg_gym.cases.writers.journal import JournalWriter, object_fields
from medseg_gym.cases.yolo.kept import FOLDER
from medseg_gym.cases.yolo.lines import digest_of

_BY_MEDSEG_GYM = "# written by medseg cases convert\n"


class YoloWriter(JournalWriter):
    """Writer of data.yaml, `images/<split>/` and `labels/<split>/`.

    Each part of a mask is a polygon that fills to that very part; holes are cut in by an edge of no
    width. What YOLO has no place for lies in `medseg_gym/<split>.json`.
    """

    @property
    def final(self) -> Path:
        """The fields that YOLO has no place for; written last."""
        return self.out / FOLDER / f"{self.split}.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Images and labels."""
        return self.out / "images" / self.split, self.out / "labels" / self.split

    def resume(self) -> int:
        """See `JournalWriter.resume`; a data.yaml of somebody else is refused."""
        file = self.out / "data.yaml"
        if file.exists() and not file.read_bytes().startswith(_BY_MEDSEG_GYM.encode()):
            raise self.foreign(file)
        return super().resume()

    def line_of(self, case: Case) -> dict[str, Any]:
        """Write the image, and return polygons and fields."""
        sides = (case.width, case.height)
        polygons = [
            " ".join(f"{value / sides[at % 2]:.8g}" for at, value in enumerate(one))
            for one in single_outlines(case.mask)
        ]
        return {
            "image": self.write_image(self.out / "images" / self.split, case),
            "polygons": polygons,
            **object_fields(case),
        }

    def close(self, lines: list[dict[str, Any]]) -> None:
        """Write label files, data.yaml, and what YOLO has no place for."""
        numbers = self._write_data_file(sorted({line["target"] for line in lines}))
        rows: dict[str, list[str]] = {}
        kept: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            name = f"labels/{self.split}/{Path(line.pop('image')).stem}.txt"
            own, cases = rows.setdefault(name, []), kept.setdefault(name, [])
            polygons = line.pop("polygons")
            cases.append({"lines": [len(own) + n + 1 for n in range(len(polygons))], **line})
            own += (f"{numbers[line['target']]} {corners}" for corners in polygons)
        labels = {}
        for name, own in rows.items():
            content = "".join(f"{row}\n" for row in own).encode()
            replace_file(self.out / name, content)
            labels[name] = {"digest": digest_of(content), "cases": kept[name]}
        document = {"identity": self.identity, "labels": labels}
        replace_file(self.final, json.dumps(document).encode())

    def finished(self) -> tuple[str, int]:
        """See `JournalWriter.finished`."""
        document = json.loads(self.final.read_bytes())
        return document["identity"], sum(len(one["cases"]) for one in document["labels"].values())

    def _write_data_file(self, targets: list[str]) -> dict[str, int]:
        """Add the split and its targets to data.yaml; return the numbers of all targets."""
        file = self.out / "data.yaml"
        names: dict[int, str] = {}
        splits = {self.split}
        if file.exists():
            document = yaml.safe_load(file.read_text(encoding="utf-8"))
            names = document["names"]
            splits |= document.keys() & set(SPLITS)
        numbers = {text: number for number, text in names.items()}
        for text in targets:
            numbers.setdefault(text, len(numbers))
        document = {split: f"images/{split}" for split in SPLITS if split in splits}
        document["names"] = {number: text for text, number in numbers.items()}
        text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
        replace_file(file, (_BY_MEDSEG_GYM + text).encode("utf-8"))
        return numbers
