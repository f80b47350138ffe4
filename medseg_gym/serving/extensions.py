"""Routes that other packages add to the service, such as the web page of `medseg_gym.play`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter

from medseg_gym.serving.sessions.book import SessionBook


class Extension(Protocol):
    """An addition to a service; each service needs an instance of its own.

    Attributes:
        reward: Name for `rewards.make`; what steps of the extension's sessions are worth. All
            extensions of a service must name the same.
        open_paths: Beginnings of the paths that are answered without an API key.
        upload_paths: Ends of the paths whose bodies may have `Limits.max_upload_bytes`; all other
            bodies may have `Limits.max_form_bytes`.
    """

    @property
    def reward(self) -> str:
        """Name for `rewards.make`."""
        ...

    @property
    def open_paths(self) -> Sequence[str]:
        """Beginnings of the paths that are answered without an API key."""
        ...

    @property
    def upload_paths(self) -> Sequence[str]:
        """Ends of the paths that take files."""
        ...

    def start(self, sessions: SessionBook) -> Sequence[APIRouter]:
        """Begin to use the service's sessions, and return the routes to add.

        Args:
            sessions: Opens, steps and closes sessions of the extension's own.

        Raises:
            MedSegError: The extension cannot work with this service.
        """
        ...

    def stop(self) -> None:
        """Release everything, before the segmenter ends; a second call does nothing."""
        ...
