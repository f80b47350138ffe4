"""The protocol over a folder of .npz files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import medseg_gym
from medseg_agents.evaluation.protocols.interactive_3d.boxes import classes_of, make_boxes
from medseg_agents.evaluation.protocols.interactive_3d.iterations import play_case
from medseg_agents.evaluation.protocols.interactive_3d.results import ProtocolFolder, summarise
from medseg_agents.evaluation.protocols.interactive_3d.scores import row_of
from medseg_agents.evaluation.protocols.interactive_3d.segmenter import InteractiveSegmenter3D
from medseg_gym.cases.files import Damaged, walk
from medseg_gym.cases.files.dataset_formats import read_file_spec
from medseg_gym.cases.files.defects import Defect
from medseg_gym.cases.npz import NpzFormat, VolumeBox
from medseg_gym.cases.npz.volume import NpzVolume
from medseg_gym.errors import CaseError

SKIPPED = "defective files (skip_bad=1)"
EMPTY = "files without a label above background"
FLAT = "files with an image instead of a volume"
"""Reasons that files are not played."""

_UNUSED = ("labels", "slices", "min_area", "splits", "group")


def run_protocol(
    segmenter: InteractiveSegmenter3D,
    cases: str,
    folder: ProtocolFolder,
    *,
    box: bool = True,
    made_boxes: bool = False,
    save_masks: bool = False,
    limit: int | None = None,
    settings: dict[str, Any] | None = None,
    machine: str = "",
    resume: bool = True,
    on_case: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Play every file once and write table and summary.

    Args:
        segmenter: The method.
        cases: "npz:PATH", with options; a folder or one file.
        folder: Where files go; cases that are done there are not played again.
        box: Begin with a box where there is one.
        made_boxes: Make boxes by the challenge's rule where a file has none.
        save_masks: Keep predictions and clicks.
        limit: First so many files.
        settings: What else decides the numbers, to be compared when a run goes on.
        machine: What the times were measured on, for the summary.
        resume: Go on with a run that is there.
        on_case: Called with the files that are done and all of them.

    Returns:
        What `summary.json` holds.

    Raises:
        CaseError: Another kind of cases, a file that cannot be used (and no `skip_bad=1`), or
            nothing to play.
        MedSegError: The folder holds another run, or the segmenter failed.
    """
    dataset_format = _format(cases)
    names = list(_names(dataset_format, cases))
    names = names if limit is None else names[:limit]
    kept = {
        **(settings or {}),
        "protocol": "cvpr2025-interactive-3d",
        "medseg_gym": medseg_gym.__version__,
        "segmenter": segmenter.name,
        "cases": cases,
        "box": box,
        "make_boxes": made_boxes,
        "save_masks": save_masks,
    }
    folder.start(kept, resume)
    records: list[dict[str, Any]] = []
    left_out: dict[str, int] = {}
    for done, name in enumerate(names, start=1):
        record = folder.record(_case(dataset_format, name))
        if record is None:
            try:
                record = _play(segmenter, dataset_format, name, folder, box, made_boxes, save_masks)
            except Damaged as error:
                if not dataset_format.given.skip_bad:
                    raise CaseError(
                        f"{cases}: {error}; skip_bad=1 leaves such files out"
                    ) from error
                record = {"left_out": SKIPPED}
        if "left_out" in record:
            left_out[record["left_out"]] = left_out.get(record["left_out"], 0) + 1
        else:
            records.append(record)
        if on_case is not None:
            on_case(done, len(names))
    if not records:
        why = "; ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise CaseError(f"{cases}: no volume is left to play" + (f" ({why})" if why else ""))
    folder.write_table(records)
    summary = {"machine": machine, "settings": kept, **summarise(records, left_out)}
    folder.write_summary(summary)
    return summary


def _play(
    segmenter: InteractiveSegmenter3D,
    dataset_format: NpzFormat,
    name: str,
    folder: ProtocolFolder,
    box: bool,
    made_boxes: bool,
    save_masks: bool,
) -> dict[str, Any]:
    volume = dataset_format.volume(name, dataset_format.labels_of(name))
    if volume.layout.flat:
        return {"left_out": FLAT}
    truth = volume.labels()
    if not classes_of(truth):
        return {"left_out": EMPTY}
    spacing = volume.spacing
    if spacing is None:
        raise Damaged(volume.name, "has no spacing, and NSD is in millimetres; add `spacing`")
    given = dataset_format.given
    image = volume.image(given.window, given.modality)
    boxes, origin = _boxes(volume, truth, box, made_boxes)
    case = _case(dataset_format, name)

    def keep(iteration: int, labels: np.ndarray) -> None:
        if save_masks:
            folder.keep_prediction(case, iteration, labels)

    played = play_case(segmenter, image, truth, (spacing[0], spacing[1], spacing[2]), boxes, keep)
    if save_masks:
        folder.keep_clicks(case, played)
    shown = f"{case}.npz"
    record = {
        "row": row_of(shown, played.scores, played.seconds, len(played.classes)),
        "classes": played.classes,
        "spacing": spacing,
        "boxes": origin,
        "synthetic": volume.synthetic,
    }
    folder.keep_record(case, record)
    return record


def _boxes(
    volume: NpzVolume, truth: np.ndarray, box: bool, made_boxes: bool
) -> tuple[tuple[VolumeBox, ...] | None, str]:
    if not box:
        return None, "none"
    boxes = volume.boxes
    if boxes is None:
        return (make_boxes(truth), "made") if made_boxes else (None, "none")
    classes = classes_of(truth)
    if len(boxes) != len(classes):
        raise Damaged(volume.name, f"has {len(boxes)} boxes for {len(classes)} classes", "boxes")
    return boxes, "file"


def _format(cases: str) -> NpzFormat:
    file_spec = read_file_spec(cases)
    if file_spec is None or not issubclass(file_spec[0], NpzFormat):
        raise CaseError(f"the protocol plays .npz files: --cases npz:PATH, not {cases!r}")
    for option in _UNUSED:
        if option in file_spec[1].options:
            raise CaseError(f"{cases}: {option}= does nothing with the protocol; leave it out")
    if not file_spec[1].path.exists():
        raise CaseError(f"{cases}: there is no {file_spec[1].path}")
    return NpzFormat(file_spec[1])


def _names(dataset_format: NpzFormat, cases: str) -> Iterator[str]:
    for name in walk(dataset_format.root):
        if isinstance(name, Defect):
            if not (name.note or dataset_format.given.skip_bad):
                raise CaseError(f"{cases}: {name}")
        elif (name or dataset_format.root.name).lower().endswith(".npz"):
            yield name


def _case(dataset_format: NpzFormat, name: str) -> str:
    return (name or dataset_format.root.name)[: -len(".npz")]
