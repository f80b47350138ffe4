"""Check for the libraries of an extra before any file is opened."""

from __future__ import annotations

from importlib import import_module

from medseg_gym.errors import CaseError


def require(format: str, *modules: str, extra: str = "data") -> None:
    """Refuse to go on without a library, instead of calling every file damaged.

    Args:
        format: The word before the colon.
        modules: Import names.
        extra: Extra of this package that brings them.

    Raises:
        CaseError: One of them is not installed, or does not import.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise CaseError(
                f"{format}: needs {module}; pip install 'medseg-gym[{extra}]' "
                f"(import failed: {error})"
            ) from error
