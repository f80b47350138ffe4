"""Backbones by name: `load`, `register`, and what somebody else's package brings."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from medseg_gym.backbones.allocator import keep_freed_memory
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.embedding_store import EmbeddingStore
from medseg_gym.backbones.families.official import OFFICIAL
from medseg_gym.backbones.protocol import Backbone, choose_device
from medseg_gym.backbones.spec import BackboneSpec
from medseg_gym.errors import BackboneError, CheckpointError
from medseg_gym.storage.cache_folder import cache_folder

ENTRY_POINT_GROUP = "medseg_gym.backbones"
CHECKPOINTS_VARIABLE = "MEDSEG_CHECKPOINTS"

REMOTE = {
    scheme: BackboneSpec(
        scheme, f"medseg_gym.backbones.remote.{module}:build", summary, extra=extra
    )
    for scheme, module, summary, extra in (
        ("http", "http", "a segmentation service", ("serve", "httpx")),
        ("https", "http", "a segmentation service", ("serve", "httpx")),
        ("ray", "ray", "an actor on a Ray cluster", ("rllib", "ray")),
    )
}
"""Backbones in another process, named "scheme:ADDRESS": (name, device, **options) -> Backbone."""

_SPECS: dict[str, BackboneSpec] = {spec.name: spec for spec in OFFICIAL}
_LOADED: dict[tuple, Backbone] = {}
_LOCK = threading.RLock()


def is_service(name: object) -> bool:
    """Whether a backbone's name is the address of a service, which may ask for a key."""
    return isinstance(name, str) and name.partition(":")[0] in ("http", "https") and ":" in name


def register(spec: BackboneSpec) -> None:
    """Add a backbone under its name.

    Raises:
        BackboneError: The name is taken.
    """
    with _LOCK:
        if spec.name in _SPECS:
            raise BackboneError(f"a backbone named {spec.name!r} is registered already")
        _SPECS[spec.name] = spec


def available() -> dict[str, BackboneSpec]:
    """Every known backbone by name; installed packages add theirs by entry point.

    An entry point of the group "medseg_gym.backbones" names a `BackboneSpec` or a builder.
    """
    found = dict(_SPECS)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found:
            continue
        distribution = point.dist.name if point.dist else "unknown package"
        found[point.name] = BackboneSpec(point.name, point.value, f"from package {distribution}")
    return found


def load(
    name: str | Backbone,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    *,
    cache_bytes: int | None = None,
    store: str | Path | None = None,
    **options: Any,
) -> Backbone:
    """Get a backbone; one shared instance per process and arguments.

    Args:
        name: A registered name (see `available`); "http:URL" for the backbone of a segmentation
            service, "ray:NAME" for one on a Ray cluster; or a Backbone, returned as it is.
        checkpoint: Weight file. Where None, a backbone that needs one looks for its official file
            name in `checkpoint_folders()`. Nothing is ever downloaded.
        device: "auto" (CUDA where there is one), "cpu", "cuda:1", ...
        cache_bytes: Budget of the instance's embedding cache on its device; 2 GiB by default.
        store: Folder where embeddings are also kept on disk, shared by processes and runs.
        **options: Passed to the builder. All learned families take `dtype`, `compile`,
            `encode_batch` and `decode_batch` (see `BatchedBackbone`); SAM 2, MedSAM2 and IMISNet
            take `image_size`; families with official weights take `random_weights=True`: always
            the same fresh weights instead of a file, for timing.

    Raises:
        BackboneError: Unknown name, an option the builder does not take, an impossible device.
        CheckpointError: The weight file is missing or unusable.
    """
    if not isinstance(name, str):
        if not isinstance(name, Backbone):
            raise BackboneError(
                f"a backbone's name or an object of the Backbone protocol is needed, got {name!r}"
            )
        if checkpoint is not None or options or cache_bytes is not None or store is not None:
            raise BackboneError(
                "checkpoint and options go with a backbone's name; "
                f"an instance was given ({type(name).__name__})"
            )
        return name
    scheme, colon, _ = name.partition(":")
    if colon and scheme in REMOTE:
        return _load_remote(name, REMOTE[scheme], checkpoint, device, cache_bytes, store, options)
    spec = available().get(name)
    if spec is None:
        raise BackboneError(
            f"unknown backbone {name!r}; known: {', '.join(sorted(available()))}. "
            "Register your own with medseg_gym.backbones.register or an entry point of the group "
            f"{ENTRY_POINT_GROUP!r}"
        )
    chosen = choose_device(device)
    path = find_checkpoint(spec, checkpoint, options.get("random_weights", False))
    kept = (cache_bytes, store and str(Path(store).expanduser().resolve()))
    key = (name, path and str(path.resolve()), str(chosen), kept, repr(sorted(options.items())))
    with _LOCK:
        if key not in _LOADED:
            if chosen.type == "cpu":
                keep_freed_memory()
            # Building a model draws fresh weights: always the same, from nobody else's generator.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                backbone = _build(spec, path, chosen, options)
            cache = embedding_cache(backbone)
            if cache_bytes is not None:
                cache.max_bytes = cache_bytes
            if store is not None:
                cache.store = EmbeddingStore(store, _storable(backbone))
            _LOADED[key] = backbone
        return _LOADED[key]


def _load_remote(
    name: str,
    remote: BackboneSpec,
    checkpoint: str | Path | None,
    device: str,
    cache_bytes: int | None,
    store: str | Path | None,
    options: dict[str, Any],
) -> Backbone:
    if checkpoint is not None or store is not None:
        raise BackboneError(
            f"backbone {name!r} is in another process: give checkpoint= and store= there"
        )
    key = (name, device, cache_bytes, repr(sorted(options.items())))
    with _LOCK:
        if key not in _LOADED:
            # Masks are made where the rollouts are, and those are mostly without a GPU.
            chosen = torch.device("cpu") if device == "auto" else choose_device(device)
            backbone = _build(replace(remote, name=name), name, chosen, options)
            if cache_bytes is not None:
                embedding_cache(backbone).max_bytes = cache_bytes
            _LOADED[key] = backbone
        return _LOADED[key]


def _storable(backbone: Backbone) -> Backbone:
    if not all(hasattr(backbone, name) for name in ("model", "dtype", "image_side")):
        raise BackboneError(
            f"backbone {backbone.name!r} cannot keep embeddings on disk: it has no model to tell "
            "its embeddings from others'; leave out store="
        )
    return backbone


def checkpoint_folders() -> list[Path]:
    """Where official weight files are looked for, in order.

    The directories that `MEDSEG_CHECKPOINTS` names (as in PATH), then the user's cache directory.
    """
    named = [Path(p) for p in os.environ.get(CHECKPOINTS_VARIABLE, "").split(os.pathsep) if p]
    return [*(folder.expanduser() for folder in named), cache_folder("checkpoints")]


def find_checkpoint(
    spec: BackboneSpec, given: str | Path | None, random_weights: bool = False
) -> Path | None:
    """Look for the weight file; None where the backbone needs none.

    Raises:
        CheckpointError: The file is missing; the message says where to get it.
        BackboneError: Random weights and a file were asked for at once.
    """
    if random_weights and given is not None:
        raise BackboneError(
            f"backbone {spec.name!r}: random_weights=True and a checkpoint exclude each other"
        )
    if random_weights:
        return None
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise CheckpointError(f"backbone {spec.name!r}: checkpoint {path} is not a file")
        return path
    if spec.checkpoint is None:
        return None
    folders = checkpoint_folders()
    for folder in folders:
        if (folder / spec.checkpoint).is_file():
            return folder / spec.checkpoint
    raise CheckpointError(
        f"backbone {spec.name!r} needs the weight file {spec.checkpoint}: get it from {spec.page} "
        f"and put it into {folders[-1]} or a directory that {CHECKPOINTS_VARIABLE} names "
        f"(looked in {', '.join(map(str, folders))}), or pass checkpoint=FILE"
    )


def _build(spec: BackboneSpec, path: Any, device: Any, options: dict) -> Backbone:
    try:
        builder: Any = spec.builder
        if isinstance(builder, str):
            try:
                builder = EntryPoint(spec.name, builder, ENTRY_POINT_GROUP).load()
            except AttributeError as error:  # the module is there, the name in it is not
                raise ImportError(error) from error
        if isinstance(builder, BackboneSpec):  # an entry point may name a whole spec
            path = find_checkpoint(builder, path, options.get("random_weights", False))
            return _build(builder, path, device, options)
        assert callable(builder)
        return builder(path, device, **dict(spec.options), **options)
    except ImportError as error:
        raise BackboneError(
            f"backbone {spec.name!r} cannot be imported: {error}; "
            + (
                f'pip install "medseg-gym[{spec.extra[0]}]"'
                if spec.extra
                else "install what it needs"
            )
        ) from error
    except TypeError as error:
        if "unexpected keyword" in str(error) or "multiple values" in str(error):
            raise BackboneError(f"backbone {spec.name!r}: {error}") from error
        raise
