"""`/session/`: images that a client uploads once and then names.

MedSAM-Agent's routes have paths of the same form; ids of these sessions tell them apart.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse
from starlette.convertors import Convertor, register_url_convertor

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.image_files import media_type
from medseg_gym.serving.monailabel.image_sessions import ImageSessions
from medseg_gym.serving.routes.responses import REFUSALS, in_thread, reply


class _SessionId(Convertor[str]):
    regex = "monai-[0-9a-f]{32}"

    def convert(self, value: str) -> str:
        """Return the id."""
        return value

    def to_string(self, value: str) -> str:
        """Return the id."""
        return value


register_url_convertor("monai_session", _SessionId())

SessionInPath = Annotated[str, Path(description="As `PUT /session/` answered.")]


def session_router(images: ImageSessions) -> APIRouter:
    """Return the routes.

    Args:
        images: The sessions.
    """
    router = APIRouter(responses=REFUSALS, tags=["MONAI Label"])

    @router.put("/session/")
    async def create(
        request: Request,
        files: Annotated[list[UploadFile], File(description="One NIfTI, NRRD or MetaImage file.")],
        uncompress: Annotated[bool, Query(description="Not done.")] = False,
        expiry: Annotated[int, Query(description="Seconds without use.")] = 0,
    ) -> Response:
        """Upload an image."""
        if len(files) != 1 or uncompress:
            raise ServiceError(
                "send one volume file: series of DICOM files and archives are not read here", 415
            )
        (one,) = files
        content = await one.read()
        session = await in_thread(images.open, request.state.owner, one.filename, content, expiry)
        return reply({"session_id": session.id, "session_info": session.describe()})

    @router.get("/session/{session_id:monai_session}")
    async def describe(
        request: Request,
        session_id: SessionInPath,
        update_ts: Annotated[bool, Query(description="Count it as used.")] = False,
        image: Annotated[bool, Query(description="Answer the image itself.")] = False,
    ) -> Response:
        """Describe a session, or give its image."""
        session = images.get(request.state.owner, session_id, update_ts)
        if image:
            kind = media_type(session.path)
            return FileResponse(session.path, media_type=kind, filename=session.name)
        return reply(session.describe())

    @router.get("/session/{session_id}", include_in_schema=False)
    async def unknown(session_id: SessionInPath) -> Response:
        """Refuse what is no id of such a session."""
        raise ServiceError(f"session {session_id[:60]!r} is not there", 404)

    # MedSAM-Agent's route of this form is described; a path is described once.
    @router.delete("/session/{session_id:monai_session}", include_in_schema=False)
    async def delete(request: Request, session_id: SessionInPath) -> Response:
        """End a session and remove its image."""
        session = await in_thread(images.close, request.state.owner, session_id)
        return reply(session.describe())

    return router
