"""Options of `medseg serve` that belong to MONAI Label's routes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from medseg_gym.errors import MedSegError
from medseg_gym.options import Options, describe_fields, repeated

if TYPE_CHECKING:
    from medseg_gym.serving.extensions import Extension


@dataclass(frozen=True, kw_only=True)
class MonaiLabelSwitches(Options):
    """MONAI Label's routes, for 3D Slicer and OHIF."""

    topic: ClassVar[str] = "MONAI Label"

    monailabel: bool = False
    """Serve MONAI Label's REST routes too; the options below belong to them."""

    studies: Path | None = None
    """Folder of NIfTI, NRRD and MetaImage files and of DICOM series, where labels are saved as
    well."""

    label: tuple[str, ...] = repeated("target")
    """Names of segments, repeatable; policies are asked for each of them."""

    policy: tuple[str, ...] = repeated()
    """Policies as automatic models, repeatable: middle-box, sb3:RUN, llm:PATH, ..."""

    policy_steps: int = 20
    """Actions of a policy on a volume, or on each slice of one."""

    window: str = ""
    """Intensities shown black and white: soft, lung, LOW,HIGH, ...; percentiles if left out."""


def check_switches(options: MonaiLabelSwitches, ray: bool) -> None:
    """Refuse options of MONAI Label's routes that would do nothing.

    Args:
        options: As given.
        ray: The service runs on Ray Serve.

    Raises:
        MedSegError: They are given without `--monailabel`, or with `--ray`.
    """
    if options.monailabel and ray:
        raise MedSegError("--monailabel does not go with --ray, which has stateless routes alone")
    usual = MonaiLabelSwitches()
    given = [
        f"--{name.replace('_', '-')}"
        for name in describe_fields(MonaiLabelSwitches)
        if getattr(options, name) != getattr(usual, name)
    ]
    if given and not options.monailabel:
        raise MedSegError(f"{', '.join(given)}: give --monailabel too, whose options these are")


def make_extension(options: MonaiLabelSwitches) -> Extension:
    """Make the extension with MONAI Label's routes.

    Raises:
        MedSegError: A policy, a label or the folder of studies cannot be used.
    """
    from medseg_gym.cli.monailabel.policy_specs import read_policy
    from medseg_gym.serving.monailabel import MonaiLabelExtension, MonaiLabelOptions

    return MonaiLabelExtension(
        MonaiLabelOptions(
            labels=options.label,
            policies=[read_policy(text) for text in options.policy],
            studies=options.studies,
            window=options.window,
            steps=options.policy_steps,
        )
    )
