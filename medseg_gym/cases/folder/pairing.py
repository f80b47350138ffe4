"""Find images and masks by name, and pair those that belong together."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Protocol

from medseg_gym.errors import CaseError


@dataclass(frozen=True)
class Role:
    """Role of a file by its name.

    Args:
        identity: Equal for an image and its masks.
        mask: False for an image.
        target: What the name says is to be segmented, or "".
        split: What the name says of the split, in its own words, or "".
        group: What the name says of the patient, or "".
    """

    identity: str
    mask: bool
    target: str = ""
    split: str = ""
    group: str = ""


class Naming(Protocol):
    """A rule for names."""

    def role(self, path: str) -> Role | None:
        """Return the role of a file, or None where the rule does not know it."""


_IMAGE_FOLDER = re.compile(r"(?:images?|imgs?|pictures?)((?:tr|ts|va|val|train|test)?)", re.I)
_MASK_WORDS = "masks?|labels?|annotations?|segmentations?|groundtruths?|ground_truths?|gts?|truths?"
_MASK_FOLDER = re.compile(rf"(?:{_MASK_WORDS})((?:tr|ts|va|val|train|test)?)", re.I)
_MASK_FOLDER_END = re.compile(rf"(.+)[_-](?:{_MASK_WORDS})", re.I)
_MASK_FILE_END = re.compile(
    r"(.+?)[_-](?:mask|segmentation|seg|label|labels|labelids|gt|groundtruth|truth|anno|manual)"
    r"(?:[_-]?\d{1,3})?",
    re.I,
)


class UsualNames:
    """The names that most published folders use.

    A mask lies in a folder called masks, labels, annotations, segmentations, gt or the like
    (also as `train_masks`), or its name ends in `_mask`, `_segmentation`, `_label`, `_gt` or the
    like; what is left of the path is the image's, up to a folder called images and the suffix.
    """

    def role(self, path: str) -> Role | None:
        """Return the role of a file."""
        folder, base = posixpath.split(path)
        stem = posixpath.splitext(base)[0]
        levels: list[str] = []
        mask = False
        for level in folder.split("/") if folder else []:
            if match := _MASK_FOLDER.fullmatch(level):
                mask = True
                levels += [match[1].lower()] if match[1] else []
            elif match := _MASK_FOLDER_END.fullmatch(level):
                mask = True
                levels.append(match[1])
            elif match := _IMAGE_FOLDER.fullmatch(level):
                levels += [match[1].lower()] if match[1] else []
            else:
                levels.append(level)
        if match := _MASK_FILE_END.fullmatch(stem):
            mask, stem = True, match[1]
        return Role("/".join([*levels, stem]), mask)


_FIELDS = ("name", "target", "split", "group")


class Patterns:
    """Names by two patterns, as `images=img/{name}.jpg` and `masks=gt/{name}_{target}.png`.

    `*` stands for anything within a folder or file name, `**` for anything, `{name}` for what image
    and mask have in common, `{target}`, `{split}` and `{group}` for what they say; `{name}` may
    hold slashes, the others not.

    Raises:
        CaseError: A pattern that cannot be used.
    """

    def __init__(self, images: str, masks: str) -> None:
        self._images, self._masks = _compile("images", images), _compile("masks", masks)

    def role(self, path: str) -> Role | None:
        """Return the role of a file."""
        match, mask = self._masks.fullmatch(path), True
        if match is None:
            match, mask = self._images.fullmatch(path), False
        if match is None:
            return None
        fields = match.groupdict()
        split, group = fields.get("split", ""), fields.get("group", "")
        target = re.sub(r"[+_]", " ", fields.get("target", ""))
        shared = (fields[field] for field in ("split", "group") if self._both(field))
        identity = "/".join([*shared, fields["name"]])
        return Role(identity, mask, target, split, group)

    def _both(self, field: str) -> bool:
        return field in self._images.groupindex and field in self._masks.groupindex


def _compile(option: str, pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\{\w*\}|\*\*|\*)", pattern)
    regex, seen = "", set()
    for piece in pieces:
        if piece == "**":
            regex += ".*"
        elif piece == "*":
            regex += "[^/]*"
        elif piece.startswith("{") and piece.endswith("}"):
            field = piece[1:-1]
            if field not in _FIELDS:
                known = ", ".join(f"{{{name}}}" for name in _FIELDS)
                raise CaseError(f"option {option}={pattern!r}: unknown {piece}; known: {known}")
            if field in seen:
                regex += f"(?P={field})"
            else:
                regex += f"(?P<{field}>.+?)" if field == "name" else f"(?P<{field}>[^/]+)"
            seen.add(field)
        else:
            regex += re.escape(piece)
    if "name" not in seen:
        raise CaseError(
            f"option {option}={pattern!r} has no {{name}}; write for example "
            "images=images/{name}.png and masks=masks/{name}_mask.png"
        )
    return re.compile(regex)


def naming(images: str, masks: str) -> Naming:
    """Return the rule that the options ask for: both patterns or neither.

    Raises:
        CaseError: Only one of them, or one that cannot be used.
    """
    if bool(images) != bool(masks):
        missing = "masks" if images else "images"
        raise CaseError(f"the option {missing} is missing: give images= and masks=, or neither")
    return Patterns(images, masks) if images else UsualNames()
