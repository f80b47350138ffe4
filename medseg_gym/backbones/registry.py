"""Backbones by name: `load`, `register`, and what somebody else's package brings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from medseg_gym.backbones.allocator import keep_freed_memory
from medseg_gym.backbones.base import Backbone, choose_device
from medseg_gym.errors import BackboneError, CheckpointError

ENTRY_POINT_GROUP = "medseg_gym.backbones"
CHECKPOINTS_VARIABLE = "MEDSEG_CHECKPOINTS"

Builder = Callable[..., Backbone]  # (checkpoint: Path | None, device, **options)


@dataclass(frozen=True)
class BackboneSpec:
    """What the registry knows of a backbone before it is loaded.

    Args:
        name: As given to `load`.
        builder: A callable `(checkpoint, device, **options) -> Backbone`, or "module:callable",
            imported when first needed.
        summary: One line for `medseg backbones list`.
        checkpoint: Name of the official weight file; None if no file is needed.
        page: Where that file is published.
        options: Keyword arguments always passed to the builder.
    """

    name: str
    builder: Builder | str
    summary: str
    checkpoint: str | None = None
    page: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


_SAM_PAGE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
_SAM2_PAGE = "https://github.com/facebookresearch/sam2#download-checkpoints"


def _official_sam(size: str, file: str, parameters: str) -> BackboneSpec:
    name = f"sam_{size}"
    return BackboneSpec(
        name,
        "medseg_gym.backbones.sam:build",
        f"Segment Anything, {size.replace('_', '-').upper()}, {parameters} parameters",
        checkpoint=file,
        page=_SAM_PAGE,
        options=(("size", size), ("name", name)),
    )


def _official_sam2(version: str, size: str, file: str, parameters: str) -> BackboneSpec:
    name = f"sam{version}_{size}"
    return BackboneSpec(
        name,
        "medseg_gym.backbones.sam2:build",
        f"Segment Anything {version}, Hiera {size.upper()}, {parameters} parameters",
        checkpoint=file,
        page=_SAM2_PAGE,
        options=(("config", f"sam{version}_hiera_{size}"), ("name", name)),
    )


_SPECS: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            "lite_medsam",
            "medseg_gym.backbones.lite_medsam:build",
            "LiteMedSAM, 9.8 M parameters, boxes; weights come with the installation",
        ),
        BackboneSpec(
            "ellipse",
            "medseg_gym.backbones.ellipse:build",
            "image-blind control: an ellipse in the box, a disc round each click",
        ),
        _official_sam("vit_b", "sam_vit_b_01ec64.pth", "94 M"),
        _official_sam("vit_l", "sam_vit_l_0b3195.pth", "312 M"),
        _official_sam("vit_h", "sam_vit_h_4b8939.pth", "641 M"),
        _official_sam2("2.1", "t", "sam2.1_hiera_tiny.pt", "39 M"),
        _official_sam2("2.1", "s", "sam2.1_hiera_small.pt", "46 M"),
        _official_sam2("2.1", "b+", "sam2.1_hiera_base_plus.pt", "81 M"),
        _official_sam2("2.1", "l", "sam2.1_hiera_large.pt", "224 M"),
        _official_sam2("2", "t", "sam2_hiera_tiny.pt", "39 M"),
        _official_sam2("2", "s", "sam2_hiera_small.pt", "46 M"),
        _official_sam2("2", "b+", "sam2_hiera_base_plus.pt", "81 M"),
        _official_sam2("2", "l", "sam2_hiera_large.pt", "224 M"),
        BackboneSpec(
            "medsam2",
            "medseg_gym.backbones.sam2:build_medsam2",
            "MedSAM2, SAM 2.1 tiny for medical images at 512 x 512, 39 M parameters",
            checkpoint="MedSAM2_latest.pt",
            page="https://huggingface.co/wanglab/MedSAM2",
        ),
        BackboneSpec(
            "imisnet",
            "medseg_gym.backbones.imisnet:build",
            "IMISNet-B (IMed-361M) at 1024 x 1024, boxes, clicks and words, 183 M parameters",
            checkpoint="IMISNet-B.pth",
            page="https://github.com/uni-medical/IMIS-Bench",
        ),
    )
}
_LOADED: dict[tuple, Backbone] = {}
_LOCK = threading.RLock()


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
    **options: Any,
) -> Backbone:
    """Get a backbone; one shared instance per process and arguments.

    Args:
        name: A registered name (see `available`), or a Backbone, returned as it is.
        checkpoint: Weight file. Where None, a backbone that needs one looks for its official file
            name in the directory that `MEDSEG_CHECKPOINTS` names.
        device: "auto" (CUDA where there is one), "cpu", "cuda:1", ...
        **options: Passed to the builder, e.g. `decode_batch`. Families with official weights take
            `random_weights=True`: always the same fresh weights instead of a file, for timing.

    Raises:
        BackboneError: Unknown name, an option the builder does not take, an impossible device.
        CheckpointError: The weight file is missing or unusable.
    """
    if not isinstance(name, str):
        if checkpoint is not None or options:
            raise BackboneError(
                "checkpoint and options go with a backbone's name; "
                f"an instance was given ({type(name).__name__})"
            )
        return name
    spec = available().get(name)
    if spec is None:
        raise BackboneError(
            f"unknown backbone {name!r}; known: {', '.join(sorted(available()))}. "
            "Register your own with medseg_gym.backbones.register or an entry point of the group "
            f"{ENTRY_POINT_GROUP!r}"
        )
    chosen = choose_device(device)
    path = find_checkpoint(spec, checkpoint, options.get("random_weights", False))
    key = (name, path and str(path.resolve()), str(chosen), repr(sorted(options.items())))
    with _LOCK:
        if key not in _LOADED:
            if chosen.type == "cpu":
                keep_freed_memory()
            # Building a model draws fresh weights: always the same, from nobody else's generator.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                _LOADED[key] = _build(spec, path, chosen, options)
        return _LOADED[key]


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
    folder = os.environ.get(CHECKPOINTS_VARIABLE)
    if folder and (Path(folder) / spec.checkpoint).is_file():
        return Path(folder) / spec.checkpoint
    raise CheckpointError(
        f"backbone {spec.name!r} needs the weight file {spec.checkpoint}: get it from {spec.page}, "
        f"then pass checkpoint=FILE or put it into the directory that {CHECKPOINTS_VARIABLE} names"
        + (f" (now {folder})" if folder else "")
    )


def _build(spec: BackboneSpec, path: Path | None, device: Any, options: dict) -> Backbone:
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
            f"backbone {spec.name!r} cannot be imported: {error}; install what it needs"
        ) from error
    except TypeError as error:
        if "unexpected keyword" in str(error) or "multiple values" in str(error):
            raise BackboneError(f"backbone {spec.name!r}: {error}") from error
        raise
