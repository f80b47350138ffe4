"""Checkpoints of vision-language models, and the view saved beside them.

A checkpoint is a folder as transformers or peft saves it. `medseg_view.json` in it says which
environment the model was trained for and how it is to be shown it: image size, words, whether it
may think, and how much of the conversation it is given. A folder without that file is shown the
defaults of the environment that is asked for.
`medseg_model.json` says which base model and adapters the weights are, see `weights.save`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medseg_agents.runs.folder import read_json
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, ChatKind, chat_kind
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.storage.atomic_write import atomic_write

VIEW_FILE = "medseg_view.json"
MODEL_FILE = "medseg_model.json"
ADAPTER_FILE = "adapter_config.json"


class SavedView(NamedTuple):
    """Contents of `medseg_view.json`."""

    view: dict[str, Any]
    """Arguments of the environment that belong to the view alone."""

    policy: dict[str, Any]
    """Arguments of `ChatPolicy`: history, sampling and so on."""

    env_id: str | None = None
    """The environment; None where the checkpoint has no such file."""


def adapter_base(path: str | Path, base: str | Path | None = None) -> str | None:
    """Return the folder of the base model of peft adapters; None for a model's own folder.

    Adapters name their base in `adapter_config.json`, by its absolute path where this project wrote
    them, and `medseg_model.json` has the way from them to it, which holds where both were moved
    together. A relative path counts from the working directory, then from the adapters' folder.

    Args:
        path: Folder of a checkpoint.
        base: Folder of the base model, where it is no longer where the adapters say.

    Raises:
        PolicyError: There is no such folder, or the adapters name none.
    """
    file = Path(path) / ADAPTER_FILE
    if not file.is_file():
        return None
    if base:
        return str(_folder(base))
    named = read_json(file, PolicyError).get("base_model_name_or_path")
    way_out = (
        "; name its folder: llm:FOLDER?base=BASE for a policy, --base BASE for `medseg train` and "
        "`medseg export-model`"
    )
    if not named:
        raise PolicyError(f"{file} does not name its base model{way_out}")
    facts = Path(path) / MODEL_FILE
    way = read_json(facts, PolicyError).get("base_from_here") if facts.is_file() else None
    candidates = [Path(named), Path(path) / str(named), *([Path(path) / str(way)] if way else [])]
    for candidate in candidates:
        if candidate.is_dir():
            return str(candidate)
    raise PolicyError(
        f"{path} holds adapters whose base model is not there: {named} is no folder (moved, made "
        f"on another machine, or named from another working directory){way_out}"
    )


def adapter_rank(path: str | Path) -> int | None:
    """Return the rank of a folder of LoRA adapters; None for a model's own folder.

    Raises:
        PolicyError: Adapters of another kind, or a damaged file.
    """
    file = Path(path) / ADAPTER_FILE
    if not file.is_file():
        return None
    config = read_json(file, PolicyError)
    if config.get("peft_type") != "LORA" or not isinstance(config.get("r"), int):
        raise PolicyError(f"{file}: adapters of kind {config.get('peft_type')!r}, not LORA")
    return int(config["r"])


def load_processor(path: str | Path, base: str | Path | None = None) -> Any:
    """Load the processor of a checkpoint; that of the base model where adapters have none.

    Args:
        path: Folder of a model, or of peft adapters.
        base: See `adapter_base`.

    Raises:
        PolicyError: There is no such folder, or no processor with a chat template and images.
    """
    from transformers import AutoProcessor

    folder = _folder(path)
    if not (folder / "tokenizer_config.json").is_file():
        folder = Path(adapter_base(folder, base) or folder)
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
    path: str | Path,
    dtype: str = "auto",
    device_map: Any = None,
    merge: bool = False,
    base: str | Path | None = None,
    trainable: bool = False,
) -> Any:
    """Load the model of a checkpoint, in evaluation mode; adapters are put on their base model.

    Args:
        path: Folder of a model, or of peft adapters.
        dtype: "auto" as stored, or a torch type's name.
        device_map: As transformers takes it: "auto", "cuda:1", a mapping; None is the CPU.
        merge: Fold adapters into the weights, which makes generation faster.
        base: See `adapter_base`.
        trainable: Let adapters require gradients.

    Raises:
        PolicyError: It cannot be loaded.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would cut through the program's own
    folder = _folder(path)
    base = adapter_base(folder, base)
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            base or folder,
            dtype=dtype,
            device_map=device_map,
            trust_remote_code=False,  # or transformers would ask whether to run the folder's code
        )
        if base:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
            if merge:
                model = model.merge_and_unload()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise PolicyError(
            f"{folder}: no vision-language model that transformers can load ({error})"
        ) from None
    return model.eval()


def save_view(
    path: str | Path,
    view: Mapping[str, Any],
    policy: Mapping[str, Any],
    env_id: str | None = IMAGE_CHAT.env_id,
) -> None:
    """Write the view beside a checkpoint.

    Args:
        path: Folder of the checkpoint.
        view: See `SavedView`, as for the others.
        policy: Likewise.
        env_id: Likewise; None leaves it open, as in a folder without the file.
    """
    saved = {"env": env_id, "view": dict(view), "policy": dict(policy)}
    atomic_write(Path(path) / VIEW_FILE, json.dumps(saved, indent=1))


def read_view(path: str | Path) -> SavedView:
    """Read what `save_view` wrote beside a checkpoint; nothing where there is no such file.

    A file that names no environment is of `MedSegChat-v0`, once the only one.

    Raises:
        PolicyError: A file that is not what `save_view` writes.
    """
    file = Path(path) / VIEW_FILE
    if not file.is_file():
        return SavedView({}, {})
    try:
        saved = read_json(file, PolicyError)
        env_id = saved.get("env", IMAGE_CHAT.env_id)
        if env_id is not None:
            chat_kind(env_id)
        return SavedView(dict(saved["view"]), dict(saved["policy"]), env_id)
    except PolicyError:
        raise
    except (MedSegError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(
            f"{file}: must hold objects 'view' and 'policy' ({error}); delete it to use defaults"
        ) from None


def kind_to_play(path: str | Path, wanted: str | None = None) -> ChatKind:
    """Return the chat environment that a checkpoint is to play.

    Args:
        path: Folder of the checkpoint.
        wanted: Id that was asked for; None takes the checkpoint's own, or `MedSegChat-v0` where it
            names none.

    Raises:
        PolicyError: The checkpoint was trained for another environment than the one asked for.
        MedSegError: No environment that chats has that id.
    """
    trained_for = read_view(path).env_id
    kind = chat_kind(wanted or trained_for or IMAGE_CHAT.env_id)
    if trained_for not in (None, kind.env_id):
        raise PolicyError(
            f"{path} was trained for {trained_for}, and {kind.env_id} was asked for, whose turns "
            f"have other images and words; leave the environment out to play {trained_for}, or "
            f"give a checkpoint that was trained for {kind.env_id}"
        )
    return kind


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise PolicyError(f"{folder}: no such folder; name the folder of a checkpoint")
    return folder
