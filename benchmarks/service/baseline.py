"""Baseline of the service: a plain server, one request at a time.

    python -m benchmarks.service.baseline --backbone pocket --port 8266

The same routes, weights, prompts in force and masks as `medseg serve`, on the same HTTP stack, but
written as such servers usually are: the image is encoded again at every click and a lock lets one
request in at a time.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import typer
import uvicorn
from fastapi import FastAPI, File, Form, HTTPException, UploadFile

from medseg_gym import backbones
from medseg_gym.backbones import Backbone, PromptRow
from medseg_gym.cli.main import run
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.pixel_budget import PixelBudget
from medseg_gym.serving.routes.images import (
    box_at,
    mask_text,
    point_at,
    read_json_field,
    read_upload,
)


@dataclass
class Kept:
    """One session: image, prompts in force, previous logits."""

    image: Any
    box: AddBox | None = None
    points: list[AddPoint] = field(default_factory=list)
    logits: torch.Tensor | None = None
    rounds: int = 0


def build(backbone: Backbone) -> FastAPI:
    """The server."""
    app = FastAPI()
    sessions: dict[str, Kept] = {}
    one_at_a_time = threading.Lock()

    def segment(session_id: str) -> dict[str, Any]:
        session = sessions[session_id]
        session.rounds += 1
        with one_at_a_time, torch.inference_mode():
            (embedding,) = backbone.encode([session.image])
            row = PromptRow(
                embedding,
                session.box,
                tuple(session.points),
                session.logits if backbone.takes_mask_input else None,
                session.box is None and len(session.points) == 1,
            )
            prediction = backbone.decode([row])
            session.logits = prediction.logits[0]
            mask = backbone.to_image(prediction.logits, [embedding])[0] > 0
        return {
            "session_id": session_id,
            "masks": [mask_text(mask)],
            "category_pred": [],
            "round_number": session.rounds,
            "total_clicks": len(session.points) + (session.box is not None),
            "message": f"Segmentation round {session.rounds} completed",
        }

    def known(session_id: str) -> Kept:
        if session_id not in sessions:
            raise HTTPException(404, "Session not found")
        return sessions[session_id]

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/session/create")
    def create(image: Annotated[UploadFile, File()]) -> dict[str, Any]:
        pixels = read_upload(image.file.read(), PixelBudget(Limits()).allowance())
        session_id = str(uuid.uuid4())
        sessions[session_id] = Kept(pixels)
        size = [pixels.shape[1], pixels.shape[0]]
        return {"session_id": session_id, "message": "created", "image_size": size}

    @app.post("/session/add_click")
    def add_click(
        session_id: Annotated[str, Form()],
        point_x: Annotated[int, Form()],
        point_y: Annotated[int, Form()],
        is_positive: Annotated[bool, Form()] = True,
    ) -> dict[str, Any]:
        session = known(session_id)
        height, width = session.image.shape[:2]
        session.points.append(point_at(point_x, point_y, is_positive, width, height))
        return segment(session_id)

    @app.post("/session/add_bbox")
    def add_bbox(
        session_id: Annotated[str, Form()], bbox: Annotated[str, Form()]
    ) -> dict[str, Any]:
        session = known(session_id)
        height, width = session.image.shape[:2]
        session.box = box_at(read_json_field(bbox, "bbox"), width, height)
        return segment(session_id)

    @app.delete("/session/{session_id}")
    def delete(session_id: str) -> dict[str, Any]:
        known(session_id)
        del sessions[session_id]
        return {"session_id": session_id, "remaining_sessions": len(sessions)}

    return app


def main(
    backbone: Annotated[str, typer.Option(help="As in `medseg backbones list`.")] = "pocket",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 8266,
) -> None:
    """Serve one request at a time, encoding the image at every click."""
    app = build(backbones.load(backbone, device=device))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    run(main)
