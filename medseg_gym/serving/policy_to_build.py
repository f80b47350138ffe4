"""The contract of a policy that is still to be built: its name, its view, and how it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class PolicyToBuild(Protocol):
    """A policy that is still to be built, and the view that it plays through.

    Attributes:
        name: Shown to people; unique among the policies that are offered together.
        env_id: Environment of the view; that of volumes makes it a policy of volumes.
        view: Arguments of that environment that belong to the view alone.
    """

    @property
    def name(self) -> str:
        """Shown to people."""
        ...

    @property
    def env_id(self) -> str:
        """Environment of the view."""
        ...

    @property
    def view(self) -> Mapping[str, Any]:
        """Arguments of that environment."""
        ...

    @property
    def build(self) -> Any:
        """Function that makes the policy for a vector environment of that view."""
        ...
