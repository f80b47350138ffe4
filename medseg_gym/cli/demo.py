"""`medseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_gym.cli.demo_options import DemoOptions
from medseg_gym.cli.from_dataclass import with_options


def demo(
    options: DemoOptions,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("out/demo"),
) -> None:
    """Play the bundled real cases with oracle, heuristic and random policies."""
    from medseg_gym.cli.play_demo import run_demo

    run_demo(out, options)


demo_command = with_options(DemoOptions, demo)
