"""`medseg export-model`: a trained model for transformers, peft or an inference server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import make_console
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class ExportModelOptions(Options):
    """Options of `medseg export-model`."""

    topic: ClassVar[str] = "Weights"

    base: str | None = None
    """Folder of the adapters' base model; left out takes the one that they name."""

    dtype: str = "float32"
    """Of merged weights: float32, bfloat16, or base for the type that the base is stored in."""


def export(
    options: ExportModelOptions,
    model: Annotated[Path, typer.Argument(help="Run, or folder of a model or of adapters.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there.")],
    merged: Annotated[
        bool,
        typer.Option(
            "--merged/--adapter", help="A whole model with adapters folded in, or adapters alone."
        ),
    ] = True,
) -> None:
    """Write a trained model as a checkpoint that transformers (or peft) loads by itself."""
    from medseg_agents.llm.weights.export import export_model

    folder = export_model(model, out, merged, options.base, options.dtype)
    print_result({"model": folder, "policy": f"llm:{folder}"})
    make_console().print(f"wrote {folder}; play it as llm:{folder}", soft_wrap=True)


export_command = with_options(ExportModelOptions, export)
