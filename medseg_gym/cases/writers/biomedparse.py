"""Write the BiomedParse format, so that reading it back gives equal cases."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from medseg_gym.cases.biomedparse.annotations import EXTRA
from medseg_gym.cases.case import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.writers.case_writer import (
    CaseWriter,
    case_fields,
    replace_file,
    require_words,
    slug,
)
from medseg_gym.errors import CaseError
from medseg_gym.storage.line_files import append_rows, mend, read_rows, write_rows


class BiomedParseWriter(CaseWriter):
    """Writer of `<split>.json`, `<split>/` and `<split>_mask/`.

    Cases that share an image share its file. An annotation has the fields that BiomedParse's own
    tools read, and under "medseg_gym" those that the format has no place for. Until the last case
    is written, annotations lie in `.<split>.unfinished`, a line each.
    """

    def resume(self) -> int:
        """Return how many cases of the split are already written.

        Raises:
            CaseError: The folder holds something else, or cannot be read.
        """
        final = self.out / f"{self.split}.json"
        try:
            if final.exists():
                return self._finished(final)
            if not self._journal.exists():
                if (self.out / self.split).exists() or (self.out / f"{self.split}_mask").exists():
                    raise self.foreign(self.out / self.split)
                write_rows(self._journal, [{"identity": self.identity}], CaseError)
                return 0
            return len(self._lines(repair=True))
        except OSError as error:
            raise CaseError(f"{self.out}: {error}") from error

    def write(self, case: Case) -> None:
        """Write image, mask and annotation of the next case.

        Raises:
            CaseError: It has no target text, or the disk refuses.
        """
        require_words(case)
        stem = f"{slug(case.group)}-{case.content_hash[:12]}"
        short = hashlib.blake2b(case.key.encode("utf-8", "surrogateescape"), digest_size=4)
        image = f"{stem}.png"
        mask = f"{stem}_{slug(case.target.replace(' ', '+'))}-{short.hexdigest()}.png"
        if not (self.out / self.split / image).exists():
            replace_file(self.out / self.split / image, png_bytes(case.image))
        replace_file(self.out / f"{self.split}_mask" / mask, png_bytes(case.mask))
        line = {
            "file_name": image,
            "mask_file": mask,
            "height": case.height,
            "width": case.width,
            "sent": case.target,
            **case_fields(case),
        }
        append_rows(self._journal, [line], CaseError)

    def finish(self) -> None:
        """Turn the lines into `<split>.json`."""
        if (self.out / f"{self.split}.json").exists():
            return
        images: dict[str, dict[str, Any]] = {}
        annotations = []
        for number, line in enumerate(self._lines()):
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
        replace_file(self.out / f"{self.split}.json", json.dumps(document).encode())
        self._journal.unlink()

    @property
    def _journal(self) -> Path:
        return self.out / f".{self.split}.unfinished"

    def _finished(self, final: Path) -> int:
        try:
            document = json.loads(final.read_bytes())
            identity = document["info"][EXTRA]
        except (ValueError, TypeError, KeyError):
            raise self.foreign(final) from None
        if identity != self.identity:
            raise self.foreign(final)
        return len(document["annotations"])

    def _lines(self, repair: bool = False) -> list[dict[str, Any]]:
        """Read the journal; a last line that a kill cut short is dropped."""
        if repair:
            mend(self._journal)
        rows = read_rows(self._journal, CaseError, "remove the folder, or that line")
        if not rows or rows[0] != {"identity": self.identity}:
            raise self.foreign(self._journal)
        return rows[1:]
