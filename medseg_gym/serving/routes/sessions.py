"""The session routes, with the names, fields and answers of MedSAM-Agent's segmentation server."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Request, Response, UploadFile

from medseg_gym.episodes import DecodeOptions
from medseg_gym.prompts import AddBox, AddPoint, Prompt
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.images import (
    box_at,
    make_case,
    mask_text,
    point_at,
    read_json_field,
    read_upload,
)
from medseg_gym.serving.routes.messages import (
    ErrorAnswer,
    SessionAnswer,
    SessionCreated,
    SessionDeleted,
    SessionList,
    SessionStatus,
)
from medseg_gym.serving.routes.predict_fields import read_points
from medseg_gym.serving.routes.responses import CONFLICT, REFUSALS, Window, in_thread, reply
from medseg_gym.serving.sessions.book import SessionBook
from medseg_gym.serving.sessions.session import Session, describe_prompts

SessionId = Annotated[str, Form(description="As `/session/create` answered.")]
SessionInPath = Annotated[str, Path(description="As `/session/create` answered.")]
Multimask = Annotated[bool, Form(description="Predict three masks, keep the best predicted IoU.")]

_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "No such session of yours"}
}
_FULL: dict[int | str, dict[str, Any]] = {
    429: {"model": ErrorAnswer, "description": "Too many sessions; see Retry-After"}
}


def session_router(book: SessionBook) -> APIRouter:
    """Return the session routes."""
    router = APIRouter(responses={**REFUSALS, **_UNKNOWN}, tags=["MedSAM-Agent"])
    own_options = book.segmenter.engine.options
    three_masks = replace(own_options, multimask="always")

    def find(request: Request, session_id: str) -> Session:
        return book.get(request.state.owner, session_id)

    async def act(
        session: Session,
        prompts: list[Prompt],
        multimask: bool,
        note: str = "",
        fresh: bool = False,
    ) -> Response:
        options: DecodeOptions | None = three_masks if multimask else None
        done = await book.act(session, prompts, options, fresh)
        return reply(
            {
                "session_id": session.id,
                "masks": [await in_thread(mask_text, done.mask)],
                "category_pred": [],
                "round_number": done.rounds,
                "total_clicks": done.clicks,
                "message": f"Segmentation round {done.rounds} completed{note}",
            }
        )

    @router.post("/session/create", response_model=SessionCreated, responses=CONFLICT | _FULL)
    async def create(
        request: Request,
        image: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, BMP or WebP.")],
        session_id: Annotated[
            str | None, Form(description="An id of your own choice, free among your sessions.")
        ] = None,
        window: Window = "",
    ) -> Response:
        """Begin a session on an image."""
        content = await image.read()
        allowance = request.state.pixels
        case = await in_thread(lambda: make_case(read_upload(content, allowance, window=window)))
        session = await book.open(request.state.owner, case, session_id)
        return reply(
            {
                "session_id": session.id,
                "message": "Session created successfully",
                "image_size": list(session.image_size),
            }
        )

    @router.post("/session/add_click", response_model=SessionAnswer, responses=CONFLICT)
    async def add_click(
        request: Request,
        session_id: SessionId,
        point_x: Annotated[int, Form(description="Column in pixels, from 0.")],
        point_y: Annotated[int, Form(description="Row in pixels, from 0.")],
        is_positive: Annotated[bool, Form(description="On the target, or on what is not.")] = True,
        multimask_output: Multimask = False,
    ) -> Response:
        """Add a click to what the session has; it sees the mask so far."""
        session = find(request, session_id)
        point = point_at(point_x, point_y, is_positive, *session.image_size)
        return await act(session, [point], multimask_output)

    @router.post("/session/add_bbox", response_model=SessionAnswer, responses=CONFLICT)
    async def add_bbox(
        request: Request,
        session_id: SessionId,
        bbox: Annotated[str, Form(description="JSON [x1, y1, x2, y2] in pixels.")],
        multimask_output: Multimask = False,
    ) -> Response:
        """Add a box; it replaces an earlier one."""
        session = find(request, session_id)
        box = box_at(read_json_field(bbox, "bbox"), *session.image_size)
        return await act(session, [box], multimask_output, " (bbox initialization)")

    @router.post("/session/segment", response_model=SessionAnswer, responses=CONFLICT)
    async def segment(
        request: Request,
        session_id: SessionId,
        point_coords: Annotated[str | None, Form(description="JSON [[x, y], ...], pixels.")] = None,
        point_labels: Annotated[str | None, Form(description="JSON [1, 0, ...].")] = None,
        bbox: Annotated[str | None, Form(description="JSON [x1, y1, x2, y2], pixels.")] = None,
        use_previous_mask: Annotated[bool, Form(description="False begins afresh.")] = True,
        multimask_output: Multimask = False,
    ) -> Response:
        """Add a box and clicks in this order, each a step of its own; the last mask comes back."""
        session = find(request, session_id)
        prompts: list[AddBox | AddPoint] = []
        if bbox is not None:
            prompts.append(box_at(read_json_field(bbox, "bbox"), *session.image_size))
        prompts += read_points(point_coords, point_labels, *session.image_size)
        if not prompts:
            raise ServiceError("give a bbox, or point_coords with point_labels")
        return await act(session, list(prompts), multimask_output, fresh=not use_previous_mask)

    @router.get("/session/{session_id}/status", response_model=SessionStatus)
    async def status(request: Request, session_id: SessionInPath) -> Response:
        """Report the prompts and the age of a session."""
        session = find(request, session_id)
        created, used = session.times
        history = describe_prompts(session.episode)
        return reply(
            {
                "session_id": session.id,
                "round_number": session.rounds,
                "total_clicks": len(history),
                "clicks_history": history,
                "has_mask": session.episode.state.logits is not None,
                "created_at": created,
                "last_accessed": used,
                "image_size": list(session.image_size),
            }
        )

    @router.delete("/session/{session_id}", response_model=SessionDeleted)
    async def delete(request: Request, session_id: SessionInPath) -> Response:
        """End a session and free what it held."""
        session = find(request, session_id)
        book.close(session)
        return reply(
            {
                "session_id": session.id,
                "message": "Session deleted",
                "remaining_sessions": len(book.of(session.owner)),
            }
        )

    @router.get("/sessions", response_model=SessionList)
    async def list_sessions(request: Request) -> Response:
        """Your sessions; nobody sees another's."""
        summaries = []
        for session in book.of(request.state.owner):
            created, used = session.times
            summaries.append(
                {
                    "session_id": session.id,
                    "round_number": session.rounds,
                    "total_clicks": len(describe_prompts(session.episode)),
                    "created_at": created,
                    "last_accessed": used,
                }
            )
        return reply({"total_sessions": len(summaries), "sessions": summaries})

    return router
