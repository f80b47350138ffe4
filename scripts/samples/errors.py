"""The error of a build that cannot go on."""

from __future__ import annotations


class BuildError(RuntimeError):
    """Something the pack is made from is missing or not what it should be."""
