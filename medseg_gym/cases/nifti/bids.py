"""BIDS: labels lie in a tree of their own, mostly `derivatives/PIPELINE/sub-01/...`.

The image that they belong to follows from the entities of their names (`sub-01_ses-2_acq-a_T1w`):

    sub-01/anat/sub-01_T1w.nii.gz
    derivatives/labels/sub-01/anat/sub-01_T1w_lesion-manual.nii.gz
    derivatives/manual_masks/sub-01/anat/sub-01_label-lesion_mask.nii.gz
    derivatives/fmriprep/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz   (desc-aseg_dseg.tsv has names)
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gym.cases.files import Damaged, read_json, require_file
from medseg_gym.cases.volumes import volume_suffix

LABEL_SUFFIXES = frozenset("dseg msk mask seg lesion lesions manual".split())
"""Words of a label volume in a tree of derivatives, those of `pairing.LABEL_WORDS` aside."""

PROBABILITIES = ("probseg", "softseg")
"""Ends of names of probability maps, which are no labels."""

_IMAGES = frozenset(
    "t1w t2w t1rho t1map t2map t2star t2starmap t2starw flair flash pd pdw pdmap pdt2 inplanet1 "
    "inplanet2 angio unit1 mp2rage megre mese vfa swi dwi sbref adc trace bold boldref cbv epi "
    "pet ct cta ctp asl m0scan defacemask".split()
)
_ACQUIRED = frozenset(
    "ses sample task tracksys acq ce trc stain rec dir run mod echo flip inv mt part proc chunk "
    "recording".split()
)
"""Entities that tell recordings apart: labels with one belong to no image without it."""

_NO_NAME = frozenset(
    "manual label labels desc mask masks seg dseg msk labelmap atlas rater roi segmentation".split()
)
_TREES = ("rawdata", "images", "labels", "masks", "segmentations", "annotations")
_MOST_NAMES = 1 << 22  # bytes of a table of names


@dataclass(frozen=True)
class Named:
    """The name of a BIDS file.

    Args:
        path: Relative to the root of the data.
        stem: Without folder and ending.
        subject: Its tree, as "sub-01" or "ds2/sub-01", without `derivatives/PIPELINE`.
        entities: Key -> value.
        suffix: The last word, lower case, where it is no entity: "t1w".
    """

    path: str
    stem: str
    subject: str
    entities: dict[str, str]
    suffix: str

    @property
    def folder(self) -> str:
        """Folder of the file."""
        return self.path.rpartition("/")[0]


def read_name(path: str) -> Named | None:
    """Take a path apart; None where it is not that of a BIDS file.

    Args:
        path: Relative to the root of the data, with "/".
    """
    *folders, name = path.split("/")
    stem = name[: len(name) - len(volume_suffix(name))]
    words = stem.split("_")
    if not re.fullmatch(r"sub-[^-_]+", words[0]):
        return None
    if in_derivatives(path):
        above = folders[: [folder.lower() for folder in folders].index("derivatives")]
    else:
        at = next((n for n, f in enumerate(folders) if f.startswith("sub-")), len(folders))
        above = folders[:at]
    if above and above[-1].lower() in _TREES:
        above = above[:-1]
    entities = dict(word.split("-", 1) for word in words if "-" in word)
    suffix = "" if "-" in words[-1] else words[-1].lower()
    return Named(path, stem, "/".join((*above, words[0])), entities, suffix)


def in_derivatives(path: str) -> bool:
    """Return whether a file lies under a folder `derivatives`."""
    return "derivatives" in path.lower().split("/")[:-1]


def is_image(named: Named) -> bool:
    """Return whether the last word of a name is one of BIDS' images."""
    return named.suffix in _IMAGES


def images_of(label: Named, images: Iterable[Named]) -> list[Named]:
    """Return the images that labels belong to: of those that do not contradict, the nearest.

    Args:
        label: The labels.
        images: All images of the subject.

    Returns:
        None, one, or several that are equally near.
    """
    ranked: dict[tuple, list[Named]] = {}
    for image in images:
        rank = _nearness(label, image)
        if rank is not None:
            ranked.setdefault(rank, []).append(image)
    return ranked[max(ranked)] if ranked else []


def _nearness(label: Named, image: Named) -> tuple | None:
    """Return the nearness of an image to labels, for comparison; None for another recording."""
    for key in _ACQUIRED:
        wanted, have = label.entities.get(key), image.entities.get(key)
        if wanted is not None and wanted != have:
            return None
    words = {word.lower() for word in label.stem.split("_")}
    space = label.entities.get("space")
    return (
        label.stem == image.stem or label.stem.startswith(image.stem + "_"),
        label.folder == image.folder,
        image.suffix in words or (space or "").lower() == image.suffix,
        space == image.entities.get("space"),
        label.folder.rpartition("/")[2] == image.folder.rpartition("/")[2],
        -sum(key in _ACQUIRED and key not in label.entities for key in image.entities),
    )


def target_in(label: Named, image: Named) -> str:
    """Return the target in the name of labels: "lesion" in `sub-01_T1w_lesion-manual`, or ""."""
    known = set(image.stem.split("_"))
    words = [word for word in label.stem.split("_") if word not in known]
    candidates: list[str] = []
    for word in words:
        key, dash, value = word.partition("-")
        if dash and (key in _ACQUIRED or key in ("sub", "space", "res", "den", "hemi")):
            continue
        candidates += [text for text in (key, value) if text]
    return " ".join(
        text
        for text in candidates
        if re.sub(r"\d+$", "", text.lower()) not in _NO_NAME and text[0].isalpha()
    )


def names_of(label: Named, root: Path, files: Iterable[str]) -> tuple[Any, str] | None:
    """Read the names of label values from a file beside labels, or above them.

    Args:
        label: The labels.
        root: Of the data.
        files: The `.tsv` and `.json` files below it, relative to it.

    Returns:
        A mapping as `labels.read_names` takes it, and the file it is from; None without one.

    Raises:
        Damaged: The nearest file cannot be used.
    """
    words = set(label.stem.split("_"))
    candidates: list[tuple[tuple, str]] = []
    for file in files:
        folder, _, name = file.rpartition("/")
        stem, _, ending = name.rpartition(".")
        above = not folder or f"{label.folder}/".startswith(f"{folder}/")
        if above and set(stem.split("_")) <= words and stem.split("_")[-1] == label.suffix:
            candidates.append(((len(folder), len(stem), ending == "tsv"), file))
        elif above and stem == label.stem:  # a name without a suffix of its own
            candidates.append(((len(folder), len(stem), ending == "tsv"), file))
    for _, file in sorted(candidates, reverse=True):
        names = _table(root / file, file) if file.endswith(".tsv") else _json(root / file, file)
        if names:
            return names, file
    return None


def _table(path: Path, name: str) -> dict[str, str]:
    require_file(path, name, _MOST_NAMES)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(name, f"is not UTF-8 text: {error}") from error
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    if not {"index", "name"} <= set(rows.fieldnames or ()):
        return {}
    names = {}
    for row in rows:
        index, called = (row["index"] or "").strip(), (row["name"] or "").strip()
        if not index.isdigit() or not called:
            raise Damaged(
                name, f"index {index!r}, name {called!r}: a whole number and a name", "row"
            )
        names[index] = called
    return names


def _json(path: Path, name: str) -> Any:
    try:
        content = read_json(path, name)
    except Damaged:
        return None  # somebody else's file: not needed, so not a defect
    if not isinstance(content, dict):
        return None
    names = next((content[k] for k in ("LabelMap", "Labels", "labels") if k in content), None)
    return names if isinstance(names, dict) else None
