"""Pair image and label volumes by the names that people give them.

One rule covers the usual layouts. A path is cut into words; words such as "label", "seg" or "mask"
make a volume a label volume, and with those and words such as "image" or "ct" taken away, an image
and its labels have the same words left:

    imagesTr/liver_3_0000.nii.gz   labelsTr/liver_3.nii.gz      (Decathlon, nnU-Net)
    brain1_image.nrrd              brain1_label.nrrd            (side by side)
    case_7/imaging.nii.gz          case_7/segmentation.nii.gz   (a folder a case)
    volume-12.nii                  segmentation-12.nii
    s0011/ct.nii.gz                s0011/segmentations/aorta.nii.gz, ...   (a file an organ)

Labels of a BIDS dataset lie in another tree than their images: see `bids`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from medseg_gym.cases.files import Defect
from medseg_gym.cases.files.splits import split_named
from medseg_gym.cases.nifti import bids
from medseg_gym.cases.volumes import volume_suffix

LABEL_WORDS = frozenset(
    "label labels lbl seg segs segmentation segmentations mask masks gt groundtruth truth roi rois "
    "annotation annotations contour contours labelmap dseg msk".split()
)
IMAGE_WORDS = frozenset("image images img imgs imaging volume volumes vol scan scans orig".split())
_DROPPED = LABEL_WORDS | IMAGE_WORDS | frozenset("ct mr mri".split())
_SPLIT_WORDS = frozenset("tr ts va val train test training testing".split())

Words = tuple[tuple[str, ...], ...]
"""Words of each part of a path."""


@dataclass(frozen=True)
class Pair:
    """An image and the labels that belong to it.

    Args:
        image: Path of the image relative to the root.
        label: Path of the label volume.
        split: Split that a folder is named after, or "".
        organ: Name of the only target, where each organ has a label file of its own.
        subject: Tree of the patient in a BIDS dataset ("sub-01"); such an image may have several
            label files.
        target: What the label file's name calls its target, where nothing else does.
    """

    image: str
    label: str
    split: str = ""
    organ: str = ""
    subject: str = ""
    target: str = ""

    @property
    def key(self) -> str:
        """Path that the keys of its cases begin with."""
        return self.label if self.subject else self.image


@dataclass(frozen=True)
class _Named:
    """A volume with the words of its path; `channel` is nnU-Net's ("0000"), cut off the words."""

    path: str
    words: Words
    is_label: bool
    channel: str = ""
    bids: bids.Named | None = None


def pair_volumes(
    names: Iterable[str], channel: int = 0, image: str = ""
) -> Iterator[Pair | Defect]:
    """Find the labels of every image.

    Args:
        names: Paths of volumes relative to the root, with "/".
        channel: Which of nnU-Net's `_0000`, `_0001`, ... files to take.
        image: A word of the image's name, where a case has several images ("flair").

    Yields:
        Pairs in the order of the label volumes, and a Defect for every volume that is left over:
        labels without an image, labels with several images; images without labels are notes.
    """
    volumes = []
    images: dict[Words, list[_Named]] = defaultdict(list)
    folders: dict[Words, list[_Named]] = defaultdict(list)
    subjects: dict[str, list[_Named]] = defaultdict(list)
    for volume in map(_read_name, names):
        if volume.bids and volume.bids.suffix in bids.PROBABILITIES:
            cause = "is a probability map; threshold it to make labels of it"
            yield _left_out(volume.path, cause, "probability maps (threshold them first)")
            continue
        volumes.append(volume)
        if not volume.is_label:
            if volume.bids:
                subjects[volume.bids.subject].append(volume)
            images[volume.words].append(volume)
            folders[volume.words[:-1]].append(volume)
            if volume.channel:  # it may as well be a number that belongs to the name
                images[(*volume.words[:-1], (*volume.words[-1], volume.channel))].append(volume)
    used: set[str] = set()
    cases: set[Words] = set()
    for label in (volume for volume in volumes if volume.is_label):
        matches, organ, subject = _images_of(label, images, folders, subjects)
        cases.update(f.words for f in matches)
        if len(matches) > 1 and any(f.channel for f in matches):
            matches = [f for f in matches if f.channel == f"{channel:04d}"] or matches
        if len(matches) > 1 and image:
            matches = [f for f in matches if image.lower() in _cut(_stem(f.path))] or matches
        used.update(f.path for f in matches)
        if len(matches) == 1:
            own, image_name = label.bids, matches[0].bids
            target = bids.target_in(own, image_name) if subject and own and image_name else ""
            yield Pair(matches[0].path, label.path, _split_of(label.path), organ, subject, target)
        elif matches:
            several = ", ".join(repr(f.path) for f in matches[:4])
            yield Defect(
                label.path,
                f"{len(matches)} images could belong to these labels ({several}); choose with "
                "image=WORD, a word of the image's name, or channel=NUMBER",
            )
        else:
            yield Defect(label.path, "no image belongs to these labels")
    for volume in volumes:
        if not (volume.is_label or volume.path in used or volume.words in cases):
            cause = "no labels belong to this image; it is left out"
            yield _left_out(volume.path, cause, "images without labels")


def _left_out(path: str, cause: str, reason: str) -> Defect:
    return Defect(path, cause, note=True, reason=reason, left_out=1)


def _images_of(
    label: _Named,
    images: dict[Words, list[_Named]],
    folders: dict[Words, list[_Named]],
    subjects: dict[str, list[_Named]],
) -> tuple[list[_Named], str, str]:
    """Find the images that could belong to labels.

    Returns:
        The images; the organ of a file that has but one; the subject of labels in BIDS' own tree.
    """
    if label.bids and bids.in_derivatives(label.path):
        if matches := _images_of_subject(label, subjects):
            return matches, "", label.bids.subject
    matches, organ = _images_by_words(label, images, folders)
    if not matches and label.bids and (matches := _images_of_subject(label, subjects)):
        return matches, "", label.bids.subject
    return matches, organ, ""


def _images_of_subject(label: _Named, subjects: dict[str, list[_Named]]) -> list[_Named]:
    assert label.bids is not None
    of_path = {v.path: v for v in subjects.get(label.bids.subject, ())}
    named = [v.bids for v in of_path.values() if v.bids is not None]
    return [of_path[image.path] for image in bids.images_of(label.bids, named)]


def _images_by_words(
    label: _Named, images: dict[Words, list[_Named]], folders: dict[Words, list[_Named]]
) -> tuple[list[_Named], str]:
    """Find images with the words of the labels, else with those and others, else in the parent."""
    *folder, own = label.words if not label.channel else _with_channel(label)
    if matches := images.get((*folder, own)):
        return matches, ""
    longer = [v for v in folders.get(tuple(folder), ()) if v.words[-1][: len(own)] == own]
    if longer:
        return longer, ""
    parent = label.path.split("/")[-2:-1]
    if parent and _kind_of(_cut(parent[0])) == "label" and (matches := images.get((*folder, ()))):
        return matches, _stem(label.path)
    return [], ""


def _read_name(path: str) -> _Named:
    *folders, _ = path.split("/")
    own = _cut(_stem(path))
    kinds = [_kind_of(words) for words in map(_cut, folders)]
    levels = tuple(
        _cut(folder) if not kind else tuple(w for w in _cut(folder) if w in _SPLIT_WORDS)
        for folder, kind in zip(folders, kinds, strict=True)
    )
    pure = next((kind for kind in reversed(kinds) if kind), "")
    is_label = bool(set(own) & LABEL_WORDS) or (
        pure == "label"
        if pure
        else not set(own) & IMAGE_WORDS and any(set(_cut(f)) & LABEL_WORDS for f in folders)
    )
    named = bids.read_name(path)
    if named is not None and bids.in_derivatives(path) and not bids.is_image(named):
        is_label = is_label or bool(set(own) & bids.LABEL_SUFFIXES)
    left = tuple(word for word in own if word not in _DROPPED)
    channel = left[-1] if len(left) > 1 and re.fullmatch(r"\d{4}", left[-1]) else ""
    left = left[:-1] if channel else left
    return _Named(path, (*(kept for kept in levels if kept), left), is_label, channel, named)


def _with_channel(volume: _Named) -> Words:
    return (*volume.words[:-1], (*volume.words[-1], volume.channel))


def _kind_of(words: tuple[str, ...]) -> str:
    """Return the kind that is all a folder's name says: "label", "image" or ""."""
    rest = set(words) - _SPLIT_WORDS
    if rest and rest <= LABEL_WORDS:
        return "label"
    return "image" if rest and rest <= IMAGE_WORDS else ""


def _cut(text: str) -> tuple[str, ...]:
    """Cut a name into words: "imagesTr" into "images", "tr"; "img0012" into "img", "0012"."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    words: list[str] = []
    for word in re.split(r"[\s_.\-]+", text.lower()):
        named = re.fullmatch(r"([a-z]+)(\d+)", word)
        if named and named[1] in LABEL_WORDS | IMAGE_WORDS:
            words += named.groups()
        elif word:
            words.append(word)
    return tuple(words)


def _stem(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name[: len(name) - len(volume_suffix(name))]


def _split_of(path: str) -> str:
    splits = {split for folder in path.split("/")[:-1] if (split := split_named(folder))}
    return splits.pop() if len(splits) == 1 else ""
