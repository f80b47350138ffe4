"""Read the file of this suite's writer beside YOLO's own: medseg_gym/<split>.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_gym.cases.files.access.guards import read_json
from medseg_gym.cases.files.access.json_values import require_kind
from medseg_gym.cases.files.defects import Damaged

FOLDER = "medseg_gym"


def read_kept(root: Path, split: str) -> dict[str, dict[str, Any]]:
    """Return digest and cases by label file; nothing where this suite has not written the data.

    Raises:
        Damaged: The file is there and cannot be used.
    """
    name = f"{FOLDER}/{split}.json"
    if not (root / name).exists():
        return {}
    document = require_kind(read_json(root / name, name), dict, "the JSON", name)
    of_file: dict[str, dict[str, Any]] = require_kind(
        document.get("labels"), dict, "'labels'", name
    )
    for file, kept in of_file.items():
        require_kind(kept, dict, repr(file), name)
        for case in require_kind(kept.get("cases"), list, repr(file), name):
            require_kind(case, dict, repr(file), name)
            lines = case.get("lines")
            if not isinstance(lines, list) or not all(isinstance(line, int) for line in lines):
                raise Damaged(name, "'lines' is no array of line numbers", repr(file))
    return of_file
