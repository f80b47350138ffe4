"""The ids of the environments, given to gymnasium as soon as it is there.

Importing gymnasium imports NumPy and takes longer than the rest of `medseg --help`, which plays
nothing. So the ids wait until gymnasium is imported, by whomever; nobody can ask for one before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_REGISTRATION = "gymnasium.envs.registration"
_IDS = {
    "MedSeg-v0": ("medseg:MedSegEnv", "medseg_vector:MedSegVectorEnv"),
    "MedSegChat-v0": ("chat:MedSegChatEnv", "chat_vector:MedSegChatVectorEnv"),
    "MedSegVolume-v0": ("volumes.single:MedSegVolumeEnv", "volumes.vector:MedSegVolumeVectorEnv"),
    "MedSegVolumeChat-v0": (
        "volumes.chat:MedSegVolumeChatEnv",
        "volumes.chat_vector:MedSegVolumeChatVectorEnv",
    ),
}


def register_ids() -> None:
    """Register the ids now if gymnasium is imported, else at the end of its import."""
    module = sys.modules.get(_REGISTRATION)
    if module is not None and hasattr(module, "register"):
        _register(module)
    elif not any(isinstance(finder, _AfterGymnasium) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterGymnasium())


def _register(module: Any) -> None:
    for name, (single, vector) in _IDS.items():
        if name not in module.registry:
            module.register(
                id=name,
                entry_point=f"medseg_gym.envs.{single}",
                vector_entry_point=f"medseg_gym.envs.{vector}",
            )


class _AfterGymnasium(MetaPathFinder):
    """Finds gymnasium's registry as ever, and has the ids registered once it has been run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRATION:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """Runs a module with its own loader, then registers the ids.

    Args:
        loader: Its own.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _register(module)
