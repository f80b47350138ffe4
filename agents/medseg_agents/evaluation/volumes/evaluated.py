"""The volumes and masks of a finished evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medseg_agents.evaluation.volumes.mask_files import MaskFolder
from medseg_agents.evaluation.volumes.results import VolumeResults
from medseg_agents.evaluation.volumes.scores import PlayedSlices, score_volumes
from medseg_gym.cases import load_cases

if TYPE_CHECKING:
    from medseg_agents.evaluation.options import EvalOptions
    from medseg_agents.evaluation.run import Evaluated


def volumes_of_evaluation(
    evaluated: Evaluated,
    options: EvalOptions,
    out: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> VolumeResults:
    """Score the volumes, and write the masks where they are asked for.

    Args:
        evaluated: The run.
        options: Of it.
        out: Folder of it; masks go to `masks/`.
        on_progress: Called with the volumes that are done and all of them.

    Raises:
        MedSegError: See `score_volumes`; or the disk refuses.
    """
    source = load_cases(options.cases, options.split)
    cut = [] if options.limit is None else source.keys[options.limit :]
    folder = MaskFolder(out / "masks", options.save, options.keep_identifiers)
    (scored,) = score_volumes(
        source,
        source.keys[: options.limit],
        [PlayedSlices(evaluated.records, evaluated.failed)],
        cut if source.volumes is not None else [],
        (lambda _, case, mask: folder.write_volume(case, mask)) if options.save_masks else None,
        on_progress,
    )
    results = VolumeResults()
    policy = evaluated.settings["policy"]
    results.add([scored], "target", backbone=options.backbone, policy=policy)
    if options.save_masks:
        folder.write_images(evaluated.records)
        folder.close()
        results.count_masks(folder)
    return results
