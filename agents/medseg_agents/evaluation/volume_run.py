"""One scan from files, one target in words, one policy: a mask on the scan's own grid.

The policy plays every slice as an image of its own, or the volume as a whole. Without a truth
nothing is scored: no Dice is invented, and policies that are shown the truth refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import medseg_gym
from medseg_agents import policies
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.options import RunOptions
from medseg_agents.evaluation.single_image import outcome_of_case
from medseg_agents.evaluation.volumes.contact_sheet import Tiles
from medseg_agents.evaluation.volumes.measures import measure_volume
from medseg_agents.evaluation.volumes.results import SLICES, WHOLE
from medseg_gym.cases import CaseList, VolumeCase
from medseg_gym.cases.image_files.one_image import DICOM_SUFFIXES
from medseg_gym.cases.volume_source import VolumeList
from medseg_gym.cases.volumes import volume_suffix
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.cases.writers.volume_masks import (
    write_nifti_mask,
    write_segmentation,
    write_slices,
)
from medseg_gym.errors import CaseError, PolicyError
from medseg_gym.policy import GivenUp, close_policy, play_or_give_up

SLOTS = 8


def is_volume(path: Path) -> bool:
    """Return whether `medseg run` takes a path for a scan: a folder, a volume file, many frames."""
    if path.is_dir() or volume_suffix(path.name):
        return True
    if path.suffix.lower() not in DICOM_SUFFIXES or not path.is_file():
        return False
    from medseg_gym.cases.dicom.facts import read_facts

    return int(read_facts(path, str(path)).get("frames", 1)) > 1


def read_volume(
    path: Path, options: RunOptions, truth: Path | None
) -> tuple[VolumeCase, dict[str, int]]:
    """Read a scan and its truth.

    Args:
        path: Volume file, or folder or file of DICOM.
        options: How.
        truth: Label file, SEG or RTSTRUCT; None leaves the truth unknown.

    Returns:
        The case, and counts of what was left out by reason.

    Raises:
        CaseError: It cannot be used.
    """
    window = options.window or ""
    if volume_suffix(path.name) and path.is_file():
        value: int | None = None
        if options.label:
            try:
                value = int(options.label)
            except ValueError:
                raise CaseError(
                    f"--label {options.label}: of a volume file give the value of the target"
                ) from None
        left_out: dict[str, int] = {}
        case = read_volume_file(
            path,
            options.target,
            truth,
            options.modality,
            window,
            options.axis,
            options.channel,
            value,
            options.resample,
            left_out,
        )
        return case, left_out
    from medseg_gym.cases.dicom.scan import read_series

    return read_series(
        path,
        options.target,
        truth,
        options.modality,
        window,
        options.axis,
        options.series,
        options.label,
    )


def run_volume(
    path: Path,
    options: RunOptions,
    out: Path,
    truth: Path | None = None,
    on_slices: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Segment a scan and write its mask, `sheet.png` and `record.json`.

    Args:
        path: See `read_volume`.
        options: How.
        out: Folder; made if it is not there.
        truth: See `read_volume`.
        on_slices: Called with the slices that are done and all of them.

    Returns:
        What `record.json` holds.

    Raises:
        CaseError: Scan or truth cannot be used.
        PolicyError: The policy cannot be used, or it is shown the truth and there is none.
        CaseFailed: A model's server failed on a slice; `record.json` says so, and there is no mask.
        MedSegError: The backbone cannot be used, or a model's server.
    """
    case, left_out = read_volume(path, options, truth)
    if "seg" in options.save and not (case.geometry and case.geometry.frames):
        raise CaseError(f"{path}: --save seg needs a scan that is DICOM; give nifti")
    scored = truth is not None
    policy_spec = policies.make(options.policy)
    # The placeholder of an unknown truth is never scored: see `scored`.
    known = replace(case, truth_known=True)
    slices = [] if policy_spec.plays_volumes else [known.slice_case(i) for i in range(case.depth)]
    cases = CaseList(slices, name=path.name, split="test") if slices else VolumeList([known])
    envs = policy_spec.make_envs(
        min(SLOTS, case.depth) if slices else 1,
        cases=cases,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        device=options.device,
        max_steps=options.max_steps if slices else options.volume_steps,
        reward=options.reward,
        **options.prompt_arguments(),
    )
    policy = policy_spec.build(envs)
    try:
        if policy.sees_truth and not scored:
            raise PolicyError(
                f"policy {policy.name!r} is shown the truth, and there is none; give --mask TRUTH, "
                "or a policy that needs no truth"
            )
        record = {
            "image": str(path),
            "slices": case.depth,
            "size": [case.width, case.height],
            "spacing_mm": case.spacing,
            "axis": case.geometry.view.axis if case.geometry else "",
            "target": case.target,
            "truth": None if truth is None else str(truth),
            "left_out": left_out,
            "medseg_gym": medseg_gym.__version__,
            "policy": policy.name,
            "plays": SLICES if slices else WHOLE,
            "oracle": policy.sees_truth,
            "backbone": envs.backbone.name,
            "trained_for": sorted(envs.backbone.trained_kinds),
            "options": {**options.to_mapping(), "view": envs.view.settings},
        }
        masks: dict[int, np.ndarray] = {}
        tiles = Tiles(scored)
        records: list[dict[str, Any]] = []
        for batch in play_or_give_up(envs, policy, list(cases.keys), options.seed):
            for played in batch:
                episode: Any = played.episode
                index = len(records)
                at = {"slice": index} if slices else {}
                records.append({**at, **outcome_of_case(played, scored)})
                if isinstance(played, GivenUp):
                    _clear(out)
                    write_json({**record, "played": records}, out / "record.json")
                    raise played.error
                if slices:
                    masks[index] = episode.state.mask.cpu().numpy()
                    tiles.add_slice(episode, index)
                else:
                    masks |= dict(enumerate(episode.mask()))
                    tiles.add_volume(episode)
            if on_slices:
                on_slices(len(masks), case.depth)
    finally:
        close_policy(policy)
        envs.close()
    mask = np.stack([masks[index] for index in range(case.depth)])
    record |= {"mask_voxels": int(mask.sum()), "seconds": sum(r["seconds"] for r in records)}
    if case.voxel_ml is not None:
        record["mask_ml"] = float(mask.sum()) * case.voxel_ml
    if scored:
        measures = measure_volume(mask, case)._asdict()
        record["notes"] = measures.pop("notes")
        record["scores"] = measures
    record["played"] = records
    files, not_written = _write(out, case, mask, options)
    tiles.write(out / "sheet.png")
    record |= {"files": files, "not_written": not_written}
    write_json(record, out / "record.json")
    return record


def _write(
    out: Path, case: VolumeCase, mask: np.ndarray, options: RunOptions
) -> tuple[list[str], dict[str, str]]:
    """Write the forms of the mask; returns the files, and why others were not written."""
    assert case.geometry is not None  # it was read from files
    _clear(out)
    files: list[str] = []
    not_written: dict[str, str] = {}
    if "nifti" in options.save:
        write_nifti_mask(out / "mask.nii.gz", mask, case.geometry)
        files.append("mask.nii.gz")
    if "seg" in options.save and not mask.any():
        not_written["mask.dcm"] = "the mask is empty, and a DICOM SEG needs a pixel"
    elif "seg" in options.save:
        keep = options.keep_identifiers
        write_segmentation(out / "mask.dcm", mask, case.geometry, case.target, keep)
        files.append("mask.dcm")
    if "png" in options.save:
        write_slices(out / "slices", mask)
        files.append("slices/")
    return [*files, "sheet.png", "record.json"], not_written


def _clear(out: Path) -> None:
    """Make the folder, without the masks of an earlier run."""
    out.mkdir(parents=True, exist_ok=True)
    masks = ("mask.nii.gz", "mask.dcm", "sheet.png")
    for stale in (*(out / name for name in masks), *out.glob("slices/slice_*.png")):
        stale.unlink(missing_ok=True)
