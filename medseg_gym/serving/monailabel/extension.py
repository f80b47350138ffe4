"""The MONAI Label routes as an extension of the service."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from medseg_gym.cases.volumes import require
from medseg_gym.serving.monailabel.image_sessions import ImageSessions
from medseg_gym.serving.monailabel.models import Models, plain_name
from medseg_gym.serving.monailabel.options import MonaiLabelOptions
from medseg_gym.serving.monailabel.routes.datastore import datastore_router
from medseg_gym.serving.monailabel.routes.infer import infer_router
from medseg_gym.serving.monailabel.routes.login import login_router
from medseg_gym.serving.monailabel.routes.sessions import session_router
from medseg_gym.serving.monailabel.studies import StudyFolder
from medseg_gym.serving.sessions.book import SessionBook


class MonaiLabelExtension:
    """The MONAI Label routes, to be handed to `make_service(..., extensions=[...])`.

    Args:
        options: Labels, policies, folder of studies, bounds.

    Raises:
        MedSegError: The folder is not there, or a library that reads images is not installed.
    """

    open_paths: Sequence[str] = ("/auth/",)
    """Clients ask without a key whether one is needed, and hand one in as a password."""

    def __init__(self, options: MonaiLabelOptions | None = None) -> None:
        require("--monailabel", "nibabel", "SimpleITK")
        self.options = options or MonaiLabelOptions()
        self._studies = StudyFolder(self.options.studies, self.options.max_voxels)
        self._images = ImageSessions(self.options)
        self._models: Models | None = None

    @property
    def reward(self) -> str:
        """Name for `rewards.make`."""
        return self.options.reward

    @property
    def upload_paths(self) -> Sequence[str]:
        """Ends of the paths that take files."""
        models = [plain_name(policy.name) for policy in self.options.policies]
        names = [*models, *([] if self._models is None else self._models.interactive)]
        images = ("/session/", "/datastore/", "/datastore/image", "/datastore/label")
        return (*images, *(f"/infer/{name}" for name in names))

    def start(self, sessions: SessionBook) -> Sequence[APIRouter]:
        """Build the policies and return the routes.

        Raises:
            MedSegError: A policy cannot be used.
        """
        segmenter = sessions.segmenter
        self._models = models = Models(segmenter, self.options)
        return (
            infer_router(models, self._images, self._studies, segmenter.limits.max_steps),
            session_router(self._images),
            datastore_router(self._studies),
            login_router(),
        )

    def stop(self) -> None:
        """Close the policies and remove uploaded images; a second call does nothing."""
        models, self._models = self._models, None
        if models is not None:
            models.close()
        self._images.stop()
