"""Checkpoints of vision-language models, and the view saved beside them.

A checkpoint is a folder as transformers or peft saves it. `medseg_view.json` in it says how the
model is to be shown the environment: image size, words, whether it may think, and how much of the
conversation it is given. A folder without that file is shown the environment's defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg_agents.runs.folder import read_json
from medseg_gym.errors import PolicyError
from medseg_gym.storage.atomic_write import atomic_write

VIEW_FILE = "medseg_view.json"


def adapter_base(path: str | Path) -> str | None:
    """Return the model that a folder of peft adapters belongs to; None for a model's own."""
    file = Path(path) / "adapter_config.json"
    if not file.is_file():
        return None
    base = read_json(file, PolicyError).get("base_model_name_or_path")
    if not base:
        raise PolicyError(f"{file} does not name its base model (base_model_name_or_path)")
    return str(base)


def load_processor(path: str | Path) -> Any:
    """Load the processor of a checkpoint; that of the base model where adapters have none.

    Raises:
        PolicyError: There is no such folder, or no processor with a chat template and images.
    """
    from transformers import AutoProcessor

    folder = _folder(path)
    base = adapter_base(folder)
    if base and not (folder / "tokenizer_config.json").is_file():
        folder = _folder(base)
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PolicyError(f"{folder}: no processor that transformers can load ({error})") from None
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise PolicyError(
            f"{folder}: {type(processor).__name__} is not the processor of a chat model with "
            "images; it needs an image processor and a chat template"
        )
    return processor


def load_model(
    path: str | Path, dtype: str = "auto", device_map: Any = None, merge: bool = False
) -> Any:
    """Load the model of a checkpoint, in evaluation mode; adapters are put on their base model.

    Args:
        path: Folder of a model, or of peft adapters.
        dtype: "auto" as stored, or a torch type's name.
        device_map: As transformers takes it: "auto", "cuda:1", a mapping; None is the CPU.
        merge: Fold adapters into the weights, which makes generation faster.

    Raises:
        PolicyError: It cannot be loaded.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would cut through the program's own
    folder = _folder(path)
    base = adapter_base(folder)
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            _folder(base) if base else folder,
            dtype=dtype,
            device_map=device_map,
            trust_remote_code=False,  # or transformers would ask whether to run the folder's code
        )
        if base:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder)
            if merge:
                model = model.merge_and_unload()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise PolicyError(
            f"{folder}: no vision-language model that transformers can load ({error})"
        ) from None
    return model.eval()


def save_view(path: str | Path, view: Mapping[str, Any], policy: Mapping[str, Any]) -> None:
    """Write the view beside a checkpoint.

    Args:
        path: Folder of the checkpoint.
        view: Arguments of `MedSegChat-v0` that belong to the view alone.
        policy: Arguments of `ChatPolicy`: history, sampling and so on.
    """
    text = json.dumps({"view": dict(view), "policy": dict(policy)}, indent=1)
    atomic_write(Path(path) / VIEW_FILE, text)


def read_view(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read view and policy arguments beside a checkpoint, both empty where there are none.

    Raises:
        PolicyError: A file that is not what `save_view` writes.
    """
    file = Path(path) / VIEW_FILE
    if not file.is_file():
        return {}, {}
    try:
        saved = read_json(file, PolicyError)
        return dict(saved["view"]), dict(saved["policy"])
    except PolicyError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(
            f"{file}: must hold objects 'view' and 'policy' ({error}); delete it to use defaults"
        ) from None


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise PolicyError(f"{folder}: no such folder; name the folder of a checkpoint")
    return folder
