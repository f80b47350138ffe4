"""Read BIDS datasets: what `nifti:` reads, with labels chosen by pipeline and entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medseg_gym.cases.files import Defect, FileSpec, WrongOption
from medseg_gym.cases.nifti import bids
from medseg_gym.cases.nifti.dataset_format import NiftiFormat, NiftiOptions


@dataclass(frozen=True, kw_only=True)
class BidsOptions(NiftiOptions):
    """Options of `BidsFormat`."""

    pipeline: str = ""
    """Folder under derivatives/ whose labels are taken; by default those of all."""

    only: str = ""
    """Entities that labels must have, as "ses-2,space-T1w,desc-manual"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(one.partition("-")[2] for one in self.only.split(",") if self.only):
            raise WrongOption("only", "give entities, as ses-2,space-T1w")


class BidsFormat(NiftiFormat):
    """A BIDS dataset: images of subjects, and labels of them under derivatives/.

    The group is the subject. See `nifti.bids` for how labels find their image and their names.
    """

    name = "bids"
    options = BidsOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        self._chosen = spec.read(BidsOptions)

    def select(self, volumes: Sequence[str]) -> Iterator[str | Defect]:
        """Leave out labels of other pipelines and entities, and refuse what is no BIDS dataset."""
        if not any(bids.read_name(name) for name in volumes):
            yield Defect(
                "",
                "holds no volume of a BIDS subject, as sub-01/anat/sub-01_T1w.nii.gz; nifti: reads "
                "other layouts",
            )
            return
        wanted = {tuple(one.split("-", 1)) for one in self._chosen.only.split(",") if one}
        other: list[str] = []
        kept = 0
        for name in volumes:
            named = bids.read_name(name)
            if named is None or not bids.in_derivatives(name) or bids.is_image(named):
                yield name
            elif self._of_pipeline(name) and wanted <= set(named.entities.items()):
                kept += 1
                yield name
            else:
                other.append(name)
        if other and not kept:
            choice = f"pipeline={self._chosen.pipeline!r} only={self._chosen.only!r}"
            yield Defect("", f"no labels fit {choice}; the first of {len(other)} is {other[0]!r}")
        elif other:
            reason = "labels of other pipelines or entities (pipeline= and only= change that)"
            yield Defect.counting(other[0], reason, len(other))

    def _of_pipeline(self, name: str) -> bool:
        folders = name.split("/")[:-1]
        at = [folder.lower() for folder in folders].index("derivatives")
        return not self._chosen.pipeline or folders[at + 1 : at + 2] == [self._chosen.pipeline]
