"""Plots as files: drawn without a window or a display, whatever their texts are written in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# Families with the letters that matplotlib's own font lacks; those that are installed are used.
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Noto Sans", "Noto Sans Arabic",
    "Noto Sans Devanagari", "Unifont",
)  # fmt: skip


@contextmanager
def drawing() -> Iterator[None]:
    """Make and save a figure in here; also a decorator. Names of targets are taken as they are.

    A dollar sign begins no formula, further fonts are used where they are installed, and a letter
    that no font has becomes a box without a warning.
    """
    from matplotlib import rc_context

    settings: Any = {"text.parse_math": False, "font.family": ["DejaVu Sans", *_installed()]}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def label(name: str) -> str:
    """A name in a legend; matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from matplotlib import font_manager

    names = set(font_manager.get_font_names())
    return tuple(name for name in _MORE_FONTS if name in names)
