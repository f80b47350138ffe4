"""`/info/`, `/infer/{model}`, and what the service has none of: training."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.answers import answer
from medseg_gym.serving.monailabel.image_sessions import ImageSessions
from medseg_gym.serving.monailabel.models import Models
from medseg_gym.serving.monailabel.parameters import read_parameters
from medseg_gym.serving.monailabel.studies import StudyFolder
from medseg_gym.serving.routes.responses import REFUSALS, in_thread, reply

OUTPUTS = ("", "all", "image", "json")


def infer_router(
    models: Models, images: ImageSessions, studies: StudyFolder, max_points: int
) -> APIRouter:
    """Return the routes.

    Args:
        models: What can segment.
        images: Images by session.
        studies: Images by id.
        max_points: Most points of one request.
    """
    router = APIRouter(responses=REFUSALS, tags=["MONAI Label"])

    @router.get("/info/")
    async def info() -> Response:
        """Describe models, labels and datastore."""
        return reply(await in_thread(models.describe, studies))

    @router.post("/infer/{model}")
    async def infer(
        request: Request,
        model: str,
        image: Annotated[str, Query(description="Id in the datastore.")] = "",
        session_id: Annotated[str, Query(description="Takes the place of `image`.")] = "",
        params: Annotated[str, Form(description="JSON: foreground, background, roi, ...")] = "{}",
        file: Annotated[UploadFile | None, File(description="Takes the place of both.")] = None,
        label: Annotated[UploadFile | None, File(description="Not taken.")] = None,
        output: Annotated[str, Query(description="all, image or json.")] = "",
    ) -> Response:
        """Segment an image; the label lies on its grid."""
        models.check(model)
        if output not in OUTPUTS:
            raise ServiceError(f"output {output[:40]!r} is not made here; use all, image or json")
        if label is not None:
            raise ServiceError("scribbles and labels are not taken; send points or a roi", 415)
        parameters = read_parameters(params, max_points)
        sent = None
        if file is not None:
            content = await file.read()
            sent = path = await in_thread(images.store, file.filename, content)
            shown = (file.filename or "image")[-100:]
        elif session_id:
            session = images.get(request.state.owner, session_id)
            path, shown = session.path, session.name
        elif image:
            path, shown = await in_thread(studies.image, image), image
        else:
            raise ServiceError("give an image: its id, a session_id, or a file")
        try:
            made = await in_thread(
                models.infer, model, path, shown, parameters, request.state.pixels
            )
        finally:
            if sent is not None:
                images.drop(sent)
        return answer(output, made.name, made.content, made.result)

    @router.api_route(
        "/train/{model:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False
    )
    async def train(model: str) -> Response:
        """Refuse to train."""
        del model
        raise ServiceError("nothing is trained here; `medseg train` trains policies", 404)

    return router
