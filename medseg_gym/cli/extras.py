"""Extras of the package: what each brings, what of it is installed, and the line for the rest."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PACKAGE = "medseg-gym"
_COMBINING = ("all", "dev")


@cache
def requirements_by_extra() -> dict[str, list[Requirement]]:
    """Return what each extra brings on this machine, but for those that are made of others."""
    extras: dict[str, list[Requirement]] = {}
    for text in requires(_PACKAGE) or []:
        requirement = Requirement(text)
        for extra in _extras_of(requirement):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                extras.setdefault(extra, []).append(requirement)
    return extras


def missing_packages(extra: str) -> list[str]:
    """Return what an extra brings that is not installed, or too old.

    Args:
        extra: Its name.
    """
    lacking = []
    for requirement in requirements_by_extra()[extra]:
        if canonicalize_name(requirement.name) == _PACKAGE:
            continue  # another extra of ours, with a row of its own
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            lacking.append(requirement.name)
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            lacking.append(f"{requirement.name} {requirement.specifier} (it is {installed})")
    return lacking


def extras_with(module: str) -> list[str]:
    """Return the extras that bring a module.

    Args:
        module: Its name, as in an import.
    """
    name = canonicalize_name(module.partition(".")[0])
    return [
        extra
        for extra, brought in requirements_by_extra().items()
        if any(canonicalize_name(one.name) == name for one in brought)
    ]


def install_line(extra: str) -> str:
    """Return the line that installs an extra, quoted for a shell.

    Args:
        extra: Its name.
    """
    return f'pip install "{_PACKAGE}[{extra}]"'


def _extras_of(requirement: Requirement) -> list[str]:
    """Names of extras in a marker such as `extra == "data"`."""
    marker = str(requirement.marker or "")
    names = [part.partition('"')[0] for part in marker.split('extra == "')[1:]]
    return [name for name in names if name not in _COMBINING]
