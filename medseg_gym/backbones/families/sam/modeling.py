"""The modules of `segment_anything`, without what its package imports beside them.

Its `__init__` imports a predictor, that imports torchvision, and that takes longer than torch
itself: none of it is needed to build a model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["MLP", "LayerNorm2d", "MaskDecoder", "PromptEncoder", "Sam", "TwoWayTransformer"]

_NAME = "segment_anything"


class _LaterPackage(ModuleType):
    """A package whose `__init__` is run when somebody asks for a name that it makes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]  # a usual module from here on
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _import_modeling() -> ModuleType:
    """Import `segment_anything.modeling`; the package's `__init__` is left for later.

    Raises:
        ModuleNotFoundError: segment_anything is not installed.
    """
    if _NAME not in sys.modules and (spec := find_spec(_NAME)) is not None:
        package = module_from_spec(spec)
        package.__class__ = _LaterPackage
        sys.modules[_NAME] = package
    return import_module(f"{_NAME}.modeling")


if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.mask_decoder import MLP
else:
    _modeling = _import_modeling()
    MaskDecoder, PromptEncoder = _modeling.MaskDecoder, _modeling.PromptEncoder
    Sam, TwoWayTransformer = _modeling.Sam, _modeling.TwoWayTransformer
    LayerNorm2d = sys.modules[f"{_NAME}.modeling.common"].LayerNorm2d
    MLP = sys.modules[f"{_NAME}.modeling.mask_decoder"].MLP
