"""Backbones by spec: `load`, `register`, `names`, and those of installed packages."""

from __future__ import annotations

import inspect
import re
import threading
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from medseg_gym.backbones.allocator import keep_freed_memory
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.checkpoint_files import find_checkpoint
from medseg_gym.backbones.embedding_store import EmbeddingStore
from medseg_gym.backbones.families.official import OFFICIAL
from medseg_gym.backbones.protocol import Backbone, choose_device
from medseg_gym.backbones.spec import BackboneSpec, Builder
from medseg_gym.errors import BackboneError
from medseg_gym.option_values import convert_options, declared_options, takes_any_option
from medseg_gym.registry import Registry
from medseg_gym.specs import Spec

_REMOTE = {
    kind: BackboneSpec(f"medseg_gym.backbones.remote.{module}:build", summary, extra=extra)
    for kind, module, summary, extra in (
        ("http", "http", "a segmentation service", ("serve", "httpx")),
        ("https", "http", "a segmentation service", ("serve", "httpx")),
        ("ray", "ray", "an actor on a Ray cluster", ("rllib", "ray")),
        (
            "nninteractive",
            "nninteractive",
            "an nninteractive-server, for whole volumes",
            ("nninteractive", "nnInteractive"),
        ),
    )
}
"""Backbones in another process, "KIND:ADDRESS"; built as (name, device, **options) -> Backbone."""

_KEY_VARIABLES = {"nninteractive": "NN_INTERACTIVE_API_KEY"}
"""Environment variables that hold the keys of servers with clients of their own."""

_FOLDERS = {
    "hf": BackboneSpec(
        "medseg_gym.backbones.families.hf.backbone:build",
        "a SAM-like model of transformers",
        extra=("llm", "transformers"),
    )
}
"""Backbones that a folder or an id names, "hf:FOLDER"; built as (folder, device, **options)."""

BACKBONES: Registry[Any] = Registry(
    "backbone",
    "medseg_gym.backbones",
    "builder(checkpoint, device, **options)",
    {**OFFICIAL, **_REMOTE, **_FOLDERS},  # type: ignore[dict-item]  # specs stand for factories here
    BackboneError,
)
"""Kinds of backbones; a factory is a `BackboneSpec` or a builder."""

_LOADED: dict[tuple, Backbone] = {}
_LOCK = threading.RLock()
_LOAD_OPTIONS = {"checkpoint": str, "device": str, "cache_bytes": int, "store": str}


def is_service(name: object) -> bool:
    """Return whether a backbone's spec is the address of a service, which may ask for a key."""
    if not isinstance(name, str):
        return False
    spec = BACKBONES.parse(name)
    return spec.kind in ("http", "https") and bool(spec.argument)


def names() -> tuple[str, ...]:
    """Kinds that `load` knows, sorted; those of installed packages and remote ones included."""
    return BACKBONES.names()


def register(kind: str, factory: str | BackboneSpec | Builder) -> None:
    """Add a backbone.

    Args:
        kind: See `Registry.register`.
        factory: A builder `(checkpoint, device, **options) -> Backbone`; a `BackboneSpec`, which
            says more about it; or "module:name" of either, imported when first needed.

    Raises:
        BackboneError: The kind is taken or cannot be written in a spec.
    """
    with _LOCK:
        BACKBONES.register(kind, factory)  # type: ignore[arg-type]  # a BackboneSpec holds a builder


def split(text: str) -> list[str]:
    """Split a list of specs with commas between them, see `medseg_gym.registry.split_specs`."""
    return BACKBONES.split(text)


def available() -> dict[str, BackboneSpec]:
    """Every known backbone of this process by kind; installed packages add theirs by entry point.

    An entry point of the group "medseg_gym.backbones" names a `BackboneSpec` or a builder.
    """
    packages = {
        point.name: f"from package {point.dist.name if point.dist else 'unknown package'}"
        for point in entry_points(group=BACKBONES.group)
    }
    return {
        kind: replace(factory, name=kind)
        if isinstance(factory, BackboneSpec)
        else BackboneSpec(factory, packages.get(kind, ""), name=kind)
        for kind, factory in BACKBONES.factories().items()
        if kind not in _REMOTE and kind not in _FOLDERS
    }


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

    This is the `make` of the registry of backbones.

    Args:
        name: A kind (see `names`), with options as "medsam2?image_size=1024"; "hf:FOLDER" for a
            SAM-like model as transformers saves it; "http:URL" for the
            backbone of a segmentation service, "ray:NAME" for one on a Ray cluster,
            "nninteractive:URL" for the model of an nninteractive-server;
            "package.module:Name" or "path/file.py:Name" for a builder, a `BackboneSpec` or a
            Backbone of your own; or a Backbone, returned as it is. The options in the text may also
            be `checkpoint`, `device`, `cache_bytes` and `store`.
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
    spec = BACKBONES.parse(name)
    factory = _factory_of(spec)
    if isinstance(factory, Backbone) and not isinstance(factory, type):
        loading: dict[str, Any] = {**spec.options, **options}
        return load(factory, checkpoint, **loading)
    given = _read_options(spec, factory)
    settings: dict[str, Any] = {
        "checkpoint": checkpoint,
        "device": device,
        "cache_bytes": cache_bytes,
        "store": store,
        **options,
    }
    for option, value in given.items():
        if settings.get(option) not in (None, "auto"):
            raise BackboneError(f"backbone {name!r}: {option!r} is given in the spec and beside it")
        settings[option] = value
    checkpoint, device, cache_bytes, store = (settings.pop(option) for option in _LOAD_OPTIONS)
    if spec.kind in _REMOTE:
        return _load_remote(spec, factory, checkpoint, device, cache_bytes, store, settings)
    chosen = choose_device(device)
    path: str | Path | None
    if spec.kind in _FOLDERS:
        if checkpoint is not None:
            raise BackboneError(f"backbone {spec.text!r} names its weights: leave checkpoint= out")
        path = spec.argument  # or an id, which is no path
    else:
        path = find_checkpoint(factory, checkpoint, settings.get("random_weights", False))
    kept = (cache_bytes, store and str(Path(store).expanduser().resolve()))
    key = (
        *(spec.kind, path and str(Path(path).resolve()), str(chosen), kept),
        repr(sorted(settings.items())),
    )
    with _LOCK:
        if key not in _LOADED:
            if chosen.type == "cpu":
                keep_freed_memory()
            # Building a model draws fresh weights: always the same, from nobody else's generator.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                backbone = _build(factory, path, chosen, settings)
            cache = embedding_cache(backbone)
            if cache_bytes is not None:
                cache.max_bytes = cache_bytes
            if store is not None:
                cache.store = EmbeddingStore(store, _storable(backbone))
            _LOADED[key] = backbone
        return _LOADED[key]


def check_name(name: str, checkpoint: str | Path | None = None) -> None:
    """Refuse a name that `load` would refuse, or one whose weight file is missing; loads nothing.

    Args:
        name: See `load`.
        checkpoint: See `load`.

    Raises:
        BackboneError: Unknown name, or an option that the builder does not take.
        CheckpointError: The weight file is missing.
    """
    spec = BACKBONES.parse(name)
    factory = _factory_of(spec)
    if not isinstance(factory, BackboneSpec):
        return
    given = _read_options(spec, factory)
    if spec.kind in _FOLDERS and factory.missing_extra is None:
        from medseg_gym.backbones.families.hf.families import family_of, read_config

        config = read_config(spec.argument, bool(given.get("download", False)))
        family_of(spec.argument, config, bool(given.get("words", False)))
    elif spec.kind not in _REMOTE and spec.kind not in _FOLDERS:
        random_weights = bool(given.get("random_weights", False))
        find_checkpoint(factory, given.get("checkpoint", checkpoint), random_weights)


def _factory_of(spec: Spec) -> Any:
    """Return the `BackboneSpec` of a kind; of a user's own object a Backbone, too.

    Raises:
        BackboneError: Unknown kind, an argument behind a kind that takes none, or something else
            than a builder.
    """
    if spec.is_own:
        own = BACKBONES.find(spec)
        if isinstance(own, BackboneSpec):
            return replace(own, name=spec.kind)
        if isinstance(own, Backbone) and not isinstance(own, type):
            return own
        if not callable(own):
            raise BackboneError(
                f"backbone {spec}: it is of the type {type(own).__name__}; a builder(checkpoint, "
                "device, **options), a BackboneSpec or a Backbone is wanted"
            )
        return BackboneSpec(own, "", name=spec.kind)
    if spec.kind in _REMOTE:
        if not spec.argument:
            raise BackboneError(f"backbone {spec}: no address; write {spec.kind}:ADDRESS")
        return replace(_REMOTE[spec.kind], name=f"{spec.kind}:{spec.argument}")
    if spec.kind in _FOLDERS:
        if not spec.argument:
            raise BackboneError(f"backbone {spec}: no checkpoint; write {spec.kind}:FOLDER")
        return replace(_FOLDERS[spec.kind], name=f"{spec.kind}:{spec.argument}")
    known = available().get(spec.kind)
    if known is None:
        BACKBONES.find(spec)  # raises, with the known ones
    if spec.argument:
        raise BackboneError(
            f"backbone {spec.kind!r} has no argument behind a colon; options stand behind a "
            f"question mark, as {spec.kind}?option=value"
        )
    return known


def _read_options(spec: Spec, factory: BackboneSpec) -> dict[str, Any]:
    """Convert a spec's options to the types that `load` and the builder declare."""
    if not spec.options:
        return {}
    if "key" in spec.options and spec.kind in _REMOTE:
        variable = _KEY_VARIABLES.get(spec.kind, "MEDSEG_SERVICE_KEY")
        raise BackboneError(
            f"backbone {spec.kind}:{spec.argument}: a key must not stand in a spec, which is kept "
            f"in records; give it as key= or in {variable}"
        )
    builder = _builder(factory)
    if isinstance(builder, BackboneSpec):  # an entry point may name a whole spec
        builder = _builder(builder)
    settled = dict(factory.options)
    declared = {
        name: kind for name, kind in declared_options(builder, 2).items() if name not in settled
    }
    return convert_options(
        f"backbone {spec}",
        spec.options,
        {**declared, **_LOAD_OPTIONS},
        BackboneError,
        takes_any_option(builder),
    )


def _load_remote(
    spec: Spec,
    factory: BackboneSpec,
    checkpoint: str | Path | None,
    device: str,
    cache_bytes: int | None,
    store: str | Path | None,
    options: dict[str, Any],
) -> Backbone:
    if checkpoint is not None or store is not None:
        raise BackboneError(
            f"backbone {spec.text!r} is in another process: give checkpoint= and store= there"
        )
    key = (factory.name, device, cache_bytes, repr(sorted(options.items())))
    with _LOCK:
        if key not in _LOADED:
            # Masks are made where the rollouts are, and those are mostly without a GPU.
            chosen = torch.device("cpu") if device == "auto" else choose_device(device)
            backbone = _build(factory, factory.name, chosen, options)
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


def _builder(spec: BackboneSpec) -> Any:
    """Return the builder; a string is imported, and may lead to another `BackboneSpec`.

    Raises:
        BackboneError: It cannot be imported; the message says how to install what it needs.
    """
    if not isinstance(spec.builder, str):
        return spec.builder
    try:
        return EntryPoint(spec.name, spec.builder, BACKBONES.group).load()
    except (ImportError, AttributeError) as error:  # or the name in the module is not there
        raise _cannot_import(spec, error) from error


def _cannot_import(spec: BackboneSpec, error: Exception) -> BackboneError:
    extra = spec.extra
    way_out = f'pip install "medseg-gym[{extra[0]}]"' if extra else "install what it needs"
    return BackboneError(f"backbone {spec.name!r} cannot be imported: {error}; {way_out}")


def _build(spec: BackboneSpec, path: Any, device: Any, options: dict[str, Any]) -> Backbone:
    builder = _builder(spec)
    if isinstance(builder, BackboneSpec):  # an entry point may name a whole spec
        builder = replace(builder, name=spec.name)
        path = find_checkpoint(builder, path, options.get("random_weights", False))
        return _build(builder, path, device, options)
    if not callable(builder):
        raise BackboneError(
            f"backbone {spec.name!r}: it is of the type {type(builder).__name__}; "
            f"{BACKBONES.signature} is wanted"
        )
    try:
        inspect.signature(builder).bind_partial(path, device)
    except TypeError as error:
        raise BackboneError(
            f"backbone {spec.name!r}: {getattr(builder, '__qualname__', builder)}"
            f"{inspect.signature(builder)} cannot be called as {BACKBONES.signature}: {error}"
        ) from None
    try:
        built: Backbone = builder(path, device, **dict(spec.options), **options)
        return built
    except ImportError as error:
        raise _cannot_import(spec, error) from error
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown:
            raise BackboneError(f"backbone {spec.name!r}: no option {unknown[1]!r}") from error
        if "multiple values" in str(error):
            raise BackboneError(f"backbone {spec.name!r}: {error}") from error
        raise
