"""The web page as an extension of the service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from medseg_gym.play.files import file_router
from medseg_gym.play.options import PageOptions
from medseg_gym.play.page import Page
from medseg_gym.play.routes.games import game_router
from medseg_gym.play.routes.page import page_router
from medseg_gym.play.routes.volumes import volume_router
from medseg_gym.serving.sessions.book import SessionBook


class PageExtension:
    """The web page at `/`, to be handed to `make_service(..., extensions=[...])`.

    Args:
        options: Cases, policies and the folder of recordings.
    """

    open_paths: Sequence[str] = ("/page/",)
    """The page's files hold nothing secret; the page asks people for a key and sends it along."""

    upload_paths: Sequence[str] = ("/api/images", "/api/volumes/upload")

    def __init__(self, options: PageOptions) -> None:
        self.options = options
        self._page: Page | None = None

    @property
    def reward(self) -> str:
        """Name for `rewards.make`."""
        return self.options.reward

    def start(self, sessions: SessionBook) -> Sequence[APIRouter]:
        """Load the cases and return the routes of the page.

        Raises:
            MedSegError: Cases or policies cannot be used.
        """
        self._page = page = Page(self.options, sessions)
        return file_router(), page_router(page), game_router(page), volume_router(page)

    def stop(self) -> None:
        """End games and policies, and close their recordings; a second call does nothing."""
        if self._page is not None:
            self._page.close()
