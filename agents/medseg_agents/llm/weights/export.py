"""Trained models as folders that transformers or peft load without this project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from medseg_agents.llm.checkpoint import (
    ADAPTER_FILE,
    adapter_base,
    load_model,
    load_processor,
    read_view,
    save_view,
)
from medseg_agents.llm.weights.origin import Origin, read_facts, stored_dtype, write_facts
from medseg_agents.llm.weights.save import save_model
from medseg_agents.runs.folder import RunFolder, read_json
from medseg_gym.errors import PolicyError
from medseg_gym.storage.atomic_write import atomic_folder

_KEPT = ("algorithm", "run", "rank", "alpha")
"""Facts about a model that hold for its export too."""


def find_model(path: str | Path) -> Path:
    """Return the folder of the model that a path means.

    Args:
        path: Of a run, whose finished model counts, else that of its newest checkpoint; or of a
            model or adapters.

    Raises:
        PolicyError: There is none.
    """
    run = RunFolder(path)
    newest = run.newest()
    candidates = [run.path, run.model, *([newest[1] / "model"] if newest else [])]
    for folder in candidates:
        if (folder / ADAPTER_FILE).is_file() or any(folder.glob("*.safetensors")):
            return folder
    raise PolicyError(
        f"{path} holds no model: neither a checkpoint of one (*.safetensors, {ADAPTER_FILE}) nor a "
        "run of `medseg train sft | grpo | chat-ppo` with model/ or a checkpoint"
    )


def export_model(
    path: str | Path,
    out: str | Path,
    merged: bool = True,
    base: str | Path | None = None,
    dtype: str = "float32",
) -> Path:
    """Write a trained model as an ordinary checkpoint, with processor, view and facts beside it.

    Args:
        path: See `find_model`.
        out: Folder to write; it must not be there.
        merged: Fold adapters into the weights, in float32, and write a whole model that
            `AutoModelForImageTextToText` loads. Else write the adapters alone, for peft.
        base: See `checkpoint.adapter_base`.
        dtype: Of merged weights: "float32", another torch type's name, or "base" for the type that
            the base is stored in.

    Returns:
        The folder.

    Raises:
        PolicyError: There is no model, its base is not there, `out` is, or adapters are asked for
            where there are none.
    """
    folder, out = find_model(path), Path(out)
    if out.exists():
        raise PolicyError(f"{out} is there already; give another --out")
    whole = adapter_base(folder, base)
    if whole is None and not merged:
        raise PolicyError(f"{folder} is a whole model without adapters: export it with --merged")
    before = read_facts(folder)
    facts = {name: before[name] for name in _KEPT if name in before}
    facts["exported_from"] = str(folder.absolute())
    processor = load_processor(folder, base)
    with atomic_folder(out, PolicyError) as unfinished:
        if merged:
            stored = stored_dtype(whole) if whole else before.get("base_dtype")
            origin = Origin(
                before.get("started_from", str(folder)),
                whole or before.get("base", str(folder)),
                str(folder) if whole else before.get("merged_adapters"),
                stored or stored_dtype(folder),
            )
            model = load_model(folder, "float32", merge=True, base=base)
            save_model(model, processor, unfinished, origin, facts, dtype)
        else:
            assert whole is not None
            _copy_adapters(folder, unfinished, whole)
            processor.save_pretrained(unfinished)
            started = before.get("started_from", whole)
            origin = Origin(started, whole, None, stored_dtype(whole))
            write_facts(unfinished, "adapters", origin, {"dtype": "float32", **facts})
        save_view(unfinished, *read_view(folder))
    return out


def _copy_adapters(folder: Path, out: Path, base: str) -> None:
    for file in (*folder.glob("adapter_model*.safetensors"), *folder.glob("adapter_model*.json")):
        shutil.copy(file, out / file.name)
    config = read_json(folder / ADAPTER_FILE, PolicyError)
    config["base_model_name_or_path"] = str(Path(base).absolute())
    (out / ADAPTER_FILE).write_text(json.dumps(config, indent=2), encoding="utf-8")
