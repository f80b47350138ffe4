"""The option `labels`: words for the labels of drawn objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg_gym.cases.files.access.guards import read_json
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.files.spec import FileSpec

LEFT_OUT = "-"
"""Words of a label that makes no case."""


def words_of_labels(spec: FileSpec, given: str) -> dict[str, str]:
    """Read `polyp:polyp in colon endoscopy,tool:-`, or a JSON file of the same.

    Args:
        spec: The options; a relative file name starts at the data's folder.
        given: Value of the option.

    Returns:
        Words by label.

    Raises:
        CaseError: It cannot be used.
    """
    if given.lower().endswith(".json"):
        file = Path(given).expanduser()
        folder = spec.path if spec.path.is_dir() else spec.path.parent
        try:
            content = read_json(file if file.is_absolute() else folder / file, given)
        except Damaged as error:
            raise spec.wrong("labels", str(error)) from error
        pairs = list(content.items()) if isinstance(content, Mapping) else [("", None)]
    else:
        pairs = [(a, b) for a, _, b in (one.partition(":") for one in given.split(",") if given)]
    words: dict[str, str] = {}
    for label, text in pairs:
        if not isinstance(text, str) or not text.strip() or not label.strip():
            raise spec.wrong("labels", "give LABEL:WORDS,LABEL:WORDS, as polyp:polyp in endoscopy")
        if label.strip() in words:
            raise spec.wrong("labels", f"{label.strip()!r} is named twice")
        words[label.strip()] = text.strip()
    return words
