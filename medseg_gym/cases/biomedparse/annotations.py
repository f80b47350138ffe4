"""Read an annotation file: from JSON of unknown shape to entries and defects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.files.access.json_values import inner_path, kind_of
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.splits import split_named


@dataclass(frozen=True)
class Entry:
    """One usable annotation.

    Args:
        place: "annotations[17]".
        image: File name under `<split>/`.
        mask: File name under `<split>_mask/`.
        sentences: (number in the file, text), at least one.
        extra: What the writer kept; empty in foreign files.
    """

    place: str
    image: str
    mask: str
    sentences: tuple[tuple[int, str], ...]
    extra: dict[str, Any]


def read_entries(document: Any, name: str, split: str, counts: Counts) -> Iterator[Entry | Defect]:
    """Read the annotations of a parsed JSON file.

    Args:
        document: What the JSON file holds.
        name: Its path relative to the root.
        split: Split that its name stands for.
        counts: Takes the notes.

    Yields:
        Entries, and a Defect for every annotation or sentence that cannot be used.

    Raises:
        Damaged: The document as a whole cannot be used.
    """
    if not isinstance(document, dict):
        raise Damaged(name, f"the JSON is {kind_of(document)}, expected an object")
    if "annotations" not in document:
        keys = ", ".join(list(map(repr, document))[:5]) or "no keys"
        raise Damaged(name, f"'annotations' is missing; the JSON has {keys}")
    annotations = document["annotations"]
    if not isinstance(annotations, list):
        raise Damaged(name, f"'annotations' is {kind_of(annotations)}, expected an array")
    names = _images_by_id(document.get("images"))
    for number, annotation in enumerate(annotations):
        place = f"annotations[{number}]"
        try:
            if not isinstance(annotation, dict):
                raise Damaged(name, f"is {kind_of(annotation)}, expected an object", place)
            image = _image_name(annotation, names, name, place)
            mask = inner_path(annotation.get("mask_file", image), "mask_file", name, place)
            declared = annotation.get("split")
            if isinstance(declared, str) and split_named(declared) not in ("", split):
                cause = f"says split {declared!r}; the name of the file decides"
                counts.add(name, cause, place)
            sentences: list[tuple[int, str]] = []
            for at, sentence in _sentences(annotation, name, place):
                if isinstance(sentence, Defect):
                    yield sentence
                elif any(sentence == text for _, text in sentences):
                    counts.add(name, "a sentence is repeated; it is taken once", place)
                else:
                    sentences.append((at, sentence))
            extra = annotation.get(EXTRA, {})
            if not isinstance(extra, dict):
                raise Damaged(name, f"{EXTRA!r} is {kind_of(extra)}, expected an object", place)
            if sentences:
                yield Entry(place, image, mask, tuple(sentences), extra)
        except Damaged as error:
            yield error.defect


def _sentences(annotation: dict, name: str, place: str) -> Iterator[tuple[int, str | Defect]]:
    given = annotation.get("sentences")
    if given is None:
        raise Damaged(name, "'sentences' is missing", place)
    if not isinstance(given, list):
        raise Damaged(name, f"'sentences' is {kind_of(given)}, expected an array", place)
    if not given:
        raise Damaged(name, "'sentences' is empty: nothing says what to segment", place)
    for number, sentence in enumerate(given):
        text = sentence.get("sent") if isinstance(sentence, dict) else None
        if isinstance(text, str) and text.strip():
            yield number, text
            continue
        if not isinstance(sentence, dict):
            cause = f"is {kind_of(sentence)}, expected an object with 'sent'"
        elif "sent" not in sentence:
            cause = "'sent' is missing"
        else:
            what = "empty" if isinstance(text, str) else kind_of(text)
            cause = f"'sent' is {what}, expected words"
        yield number, Defect(name, cause, f"{place}.sentences[{number}]")


def _images_by_id(images: Any) -> dict[Any, Any]:
    if not isinstance(images, list):
        return {}
    return {
        image["id"]: image.get("file_name")
        for image in images
        if isinstance(image, dict) and isinstance(image.get("id"), (int, str))
    }


def _image_name(annotation: dict, names: dict[Any, Any], name: str, place: str) -> str:
    if "file_name" in annotation:
        return inner_path(annotation["file_name"], "file_name", name, place)
    image_id = annotation.get("image_id")
    if isinstance(image_id, (int, str)) and names.get(image_id) is not None:
        return inner_path(names[image_id], "file_name", name, place)
    raise Damaged(name, "'file_name' is missing", place)
