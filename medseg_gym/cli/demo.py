"""`medseg demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from medseg_gym.cli.console import console
from medseg_gym.option_groups import CaseOptions


@dataclass(frozen=True, kw_only=True)
class DemoOptions(CaseOptions):
    """Options of `medseg demo`."""

    topic: ClassVar[str] = "Demo"

    backbones: tuple[str, ...] = ("pocket", "lite_medsam", "ellipse")
    """Names, comma between; the images are of the first."""

    num_envs: int = 8
    """Slots of the vector environment."""


def demo(
    options: DemoOptions,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("out/demo"),
) -> None:
    """Play the bundled real cases with oracle, heuristic and random policies."""
    from medseg_gym.cli.play_demo import run_demo

    run_demo(out, options, console=console)
