"""Origin of a trained model: the facts that are kept beside its weights."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_agents.llm.checkpoint import MODEL_FILE
from medseg_agents.runs.folder import read_json
from medseg_gym.errors import PolicyError
from medseg_gym.storage.atomic_write import atomic_write

_PACKAGES = ("medseg-gym", "torch", "transformers", "peft", "ray", "trl")


@dataclass(frozen=True)
class Origin:
    """Origin of a model's weights.

    Args:
        start: Folder that training began with.
        base: Folder of the whole model beneath it: the adapters' base, or `start` itself.
        merged: Folder of adapters that were folded into the weights; None for none.
        dtype: Type of the base's weights as they are stored, such as "bfloat16".
    """

    start: str
    base: str
    merged: str | None
    dtype: str


def stored_dtype(folder: str | Path) -> str:
    """Return the type that a whole model's folder stores its weights in; "float32" if unsaid."""
    config = read_json(Path(folder) / "config.json", PolicyError)
    named = config.get("dtype") or config.get("torch_dtype") or "float32"
    return str(named).removeprefix("torch.")


def write_facts(folder: str | Path, kind: str, origin: Origin, facts: Mapping[str, Any]) -> None:
    """Write `medseg_model.json`: what the weights are, their base, how they were made.

    Args:
        folder: Of the checkpoint; it may still have a temporary name beside its final one.
        kind: "adapters", or "weights" of a whole model.
        origin: Where they come from.
        facts: What else is known, JSON: dtype, rank, run, options.
    """
    named = {
        "kind": kind,
        "base": str(Path(origin.base).absolute()),
        "base_from_here": os.path.relpath(Path(origin.base).resolve(), Path(folder).resolve()),
        "base_dtype": origin.dtype,
        "started_from": str(Path(origin.start).absolute()),
        "merged_adapters": origin.merged and str(Path(origin.merged).absolute()),
        **facts,
        "versions": versions(),
    }
    atomic_write(Path(folder) / MODEL_FILE, json.dumps(named, indent=1), PolicyError)
    atomic_write(Path(folder) / "README.md", _card(kind, named), PolicyError)


def _card(kind: str, facts: Mapping[str, Any]) -> str:
    """A model card: what the folder is, in the form that model hubs read."""
    base = Path(facts["base"]).name
    library = "peft" if kind == "adapters" else "transformers"
    made = f", {facts['dtype']}" if "dtype" in facts else ""
    lines = [
        *(
            "---",
            f"library_name: {library}",
            f"base_model: {base}",
            "tags: [medseg-gym]",
            "---",
            "",
        ),
        f"# {'Adapters for' if kind == 'adapters' else 'Weights from'} {base}",
        "",
        f"{kind.capitalize()}{made}, trained with medseg-gym to segment medical images by "
        "prompting a segmenter. Not for clinical use.",
        "",
        f"`{MODEL_FILE}` names base, run and versions, `medseg_view.json` how the model is shown "
        "the environment.",
    ]
    return "\n".join(lines) + "\n"


def read_facts(folder: str | Path) -> dict[str, Any]:
    """Return what `write_facts` wrote; empty where there is nothing.

    Raises:
        PolicyError: The file is damaged.
    """
    file = Path(folder) / MODEL_FILE
    return read_json(file, PolicyError) if file.is_file() else {}


def versions() -> dict[str, str]:
    """Return the versions of the packages that made a model."""
    known = {}
    for name in _PACKAGES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known
