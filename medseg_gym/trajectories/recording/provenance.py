"""Provenance of recorded episodes: cases, policy, weights and options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import medseg_gym
from medseg_gym.backbones import Backbone, available
from medseg_gym.backbones.checkpoint_files import find_checkpoint
from medseg_gym.backbones.registry import BACKBONES
from medseg_gym.envs.core import EnvCore
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.volumes.core import VolumeCore
from medseg_gym.envs.volumes.options import VolumeOptions
from medseg_gym.errors import BackboneError
from medseg_gym.option_values import TRUE
from medseg_gym.policy import Policy

_OPTIONS = (
    *("max_steps", "prompt_memory", "mask_input", "multimask", "text_prompt", "text_start"),
    "image_size",
)


def shared_facts(core: EnvCore | VolumeCore, policy: str | Policy) -> dict[str, Any]:
    """The facts that all episodes of a recorder share: where, who and with which options."""
    return option_facts(
        core.options,
        core.source.name,
        core.backbone,
        core.view.settings,
        policy if isinstance(policy, str) else policy.name,
        None if isinstance(policy, str) else policy.sees_truth,
    )


def option_facts(
    options: EnvOptions,
    source: str,
    backbone: Backbone,
    settings: Mapping[str, Any],
    policy: str,
    sees_truth: bool | None,
) -> dict[str, Any]:
    """The same where there is no environment.

    Args:
        options: Under which the episodes are played.
        source: Name of the case source.
        backbone: Who segments.
        settings: Of the view: bins, image_size, tools, ...
        policy: Who acts.
        sees_truth: Whether it is shown the truth; None if that is not known.
    """
    checkpoint = _checkpoint(options)
    volumes: dict[str, Any] = {}
    if isinstance(options, VolumeOptions):
        volumes["propagation"] = options.propagation.to_mapping()
    return {
        "cases": options.cases if isinstance(options.cases, str) else None,
        "split": options.split,
        "source": source,
        "policy": policy,
        "sees_truth": sees_truth,
        "backbone": backbone.name,
        "checkpoint": checkpoint and checkpoint.name,
        "checkpoint_hash": checkpoint and _hash_file(checkpoint, checkpoint.stat().st_mtime_ns),
        "options": {
            **{name: getattr(options, name) for name in _OPTIONS},
            **settings,
            **volumes,
            "medseg_gym": medseg_gym.__version__,
            "trained_kinds": sorted(backbone.trained_kinds),
            "reward": options.reward if isinstance(options.reward, str) else repr(options.reward),
            "backbone_options": {
                name: value if isinstance(value, (str, int, float, type(None))) else repr(value)
                for name, value in (options.backbone_options or {}).items()
                if name != "key"  # a store is given to others
            },
        },
    }


def _checkpoint(options: EnvOptions) -> Path | None:
    name = options.backbone
    spec = BACKBONES.parse(name) if isinstance(name, str) else None
    known = spec and available().get(spec.kind)
    if not spec or not known:
        return None if options.checkpoint is None else Path(options.checkpoint)
    random_weights = {**spec.options, **(options.backbone_options or {})}.get("random_weights")
    file = options.checkpoint or spec.options.get("checkpoint")
    try:
        return find_checkpoint(known, file, str(random_weights).lower() in TRUE)
    except BackboneError:
        return None


@lru_cache(maxsize=32)
def _hash_file(path: Path, changed: int) -> str:
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
