"""Check for the libraries of the extra `data` before any file is opened."""

from __future__ import annotations

from importlib import import_module

from medseg_gym.errors import CaseError


def require(format: str, *modules: str) -> None:
    """Refuse to go on without a library, instead of calling every file damaged.

    Args:
        format: The word before the colon.
        modules: Import names.

    Raises:
        CaseError: One of them is not installed, or does not import.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise CaseError(
                f"{format}: needs {module}; pip install 'medseg-gym[data]' (import failed: {error})"
            ) from error
