"""BackboneSpec: what is known of a backbone before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from medseg_gym.backbones.protocol import Backbone

Builder = Callable[..., Backbone]  # (checkpoint: Path | None, device, **options)


@dataclass(frozen=True)
class BackboneSpec:
    """Builder of a backbone and what is known before it is called.

    Args:
        builder: A callable `(checkpoint, device, **options) -> Backbone`, or "module:callable",
            imported when first needed.
        summary: One line for `medseg backbones list`.
        checkpoint: Name of the official weight file; None if no file is needed.
        page: Where that file is published.
        options: Keyword arguments always passed to the builder.
        parameters: Millions of them, for `medseg backbones list`.
        image_size: Side of the encoder's input in pixels, likewise.
        kinds: Prompt kinds, likewise.
        extra: The extra of this package that brings what the builder imports, and a module that is
            missing without it.
        name: Its kind; the registry sets it.
    """

    builder: Builder | str
    summary: str
    checkpoint: str | None = None
    page: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    parameters: float | None = None
    image_size: int | None = None
    kinds: tuple[str, ...] = ("box", "point")
    extra: tuple[str, str] | None = None
    name: str = ""

    @property
    def missing_extra(self) -> str | None:
        """Name of the extra that is not installed, else None."""
        if self.extra is None or find_spec(self.extra[1]) is not None:
            return None
        return self.extra[0]
