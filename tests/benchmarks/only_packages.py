"""Hide installed packages, as if a machine had only a few: put on PYTHONPATH as `sitecustomize`.

`ONLY_PACKAGES` lists distributions, comma between; they and all that they need stay.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from typing import Any

_INSTALLED = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


def canonical(name: str) -> str:
    """Return a distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: Iterable[str]) -> set[str]:
    """Return distributions and what they need, by canonical name; extras are not needed."""
    needed: set[str] = set()
    waiting = [canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in requirements:
            if "extra ==" not in text:
                match = re.match(r"[A-Za-z0-9._-]+", text)
                assert match is not None
                waiting.append(canonical(match[0]))
    return needed


class Only(PathFinder):
    """Finds what `PathFinder` does, but for packages of other distributions."""

    hidden: frozenset[str] = frozenset()

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """Find a module; none of a hidden package, unless another package carries a copy of it."""
        if path is None and fullname in cls.hidden:
            path = [folder for folder in sys.path if folder not in _INSTALLED]
        return super().find_spec(fullname, path, target)


def hide(names: Iterable[str]) -> None:
    """Hide every package of the environment but those of `names` and what they need."""
    stay = closure(names)
    owners = importlib.metadata.packages_distributions()
    own = {"medseg-gym", "pip", "setuptools", "wheel"}
    Only.hidden = frozenset(
        package
        for package, distributions in owners.items()
        if not {canonical(name) for name in distributions} & (stay | own)
    )
    sys.meta_path[sys.meta_path.index(PathFinder)] = Only


if os.environ.get("ONLY_PACKAGES"):
    hide(os.environ["ONLY_PACKAGES"].split(","))
