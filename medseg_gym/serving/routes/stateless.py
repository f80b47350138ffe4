"""The stateless routes: `/v1/...` for the `http:` backbone, `/predict...` for older clients."""

from __future__ import annotations

import base64
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from medseg_gym.episodes import DecodeOptions
from medseg_gym.serving.batching.row_decoder import RowDecoder
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.routes import row_messages
from medseg_gym.serving.routes.messages import (
    BackboneAnswer,
    DecodeAnswer,
    EncodeAnswer,
    PredictAnswer,
    PredictStateAnswer,
)
from medseg_gym.serving.routes.predict_fields import PredictFields, write_mask
from medseg_gym.serving.routes.responses import (
    CONFLICT,
    MISSING,
    NOT_JSON,
    REFUSALS,
    Window,
    in_thread,
    json_body,
    read_json_body,
    reply,
)


def stateless_router(decoder: RowDecoder, limits: Limits, options: DecodeOptions) -> APIRouter:
    """Return the stateless routes over a decoder."""
    router = APIRouter(responses=REFUSALS)
    facts = decoder.facts

    @router.get("/v1/backbone", response_model=BackboneAnswer, tags=["stateless"])
    async def backbone() -> Response:
        """Describe the backbone, and how its logits become an image."""
        service = {
            "version": version("medseg-gym"),
            "max_rows": limits.max_rows,
            "max_upload_bytes": limits.max_upload_bytes,
        }
        return reply({**facts.to_json(), **service})

    @router.post(
        "/v1/encode",
        response_model=EncodeAnswer,
        responses=CONFLICT | NOT_JSON,
        openapi_extra=json_body("EncodeRequest"),
        tags=["stateless"],
    )
    async def encode(request: Request) -> Response:
        """Encode images, or ask which are held; what was encoded stays while the cache holds it."""
        body = await read_json_body(request)
        hashes, images = await in_thread(
            row_messages.read_encode, body, limits, facts, request.state.pixels
        )
        held = await decoder.known(hashes) if hashes else {}
        encoded = await decoder.encode(images) if images else {}
        sizes = encoded | held
        order = list(dict.fromkeys([*images, *hashes]))
        return reply(
            {
                "images": [{"hash": k, "input_size": list(sizes[k])} for k in order if k in sizes],
                "missing": [key for key in order if key not in sizes],
            }
        )

    @router.post(
        "/v1/decode",
        response_model=DecodeAnswer,
        responses=CONFLICT | MISSING | NOT_JSON,
        openapi_extra=json_body("DecodeRequest"),
        tags=["stateless"],
    )
    async def decode(request: Request) -> Response:
        """Decode rows; row i of the answer depends on row i alone.

        An image is named by the content hash that `/v1/encode` answered, or sent along.
        """
        body = await read_json_body(request)
        wanted, images, dtype = await in_thread(
            row_messages.read_decode, body, limits, facts, request.state.pixels
        )
        logits, iou = await decoder.decode(wanted, images)
        return reply(await in_thread(row_messages.write_decode, logits, iou, dtype))

    async def predict_row(request: Request, fields: PredictFields) -> tuple[str, Any]:
        row, pixels = await in_thread(fields.read, request.state.pixels, facts, options)
        sizes = await decoder.encode({row.image: pixels})
        logits, _ = await decoder.decode([row], {row.image: pixels})
        mask = await in_thread(write_mask, facts, logits, pixels, sizes[row.image])
        return mask, logits

    @router.post("/predict", response_model=PredictAnswer, tags=["MedSAM-Agent"])
    async def predict(
        request: Request,
        image: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, BMP or WebP.")],
        point_coords: Annotated[str | None, Form(description="JSON [[x, y], ...], pixels.")] = None,
        point_labels: Annotated[str | None, Form(description="JSON [1, 0, ...].")] = None,
        bbox: Annotated[str | None, Form(description="JSON [x1, y1, x2, y2], pixels.")] = None,
        text: Annotated[str | None, Form(description='JSON ["left kidney"].')] = None,
        multimask_output: Annotated[bool, Form(description="Three masks, the best kept.")] = False,
        window: Window = "",
    ) -> Response:
        """One mask for one image and its prompts; nothing is remembered but the encoding."""
        content = await image.read()
        fields = PredictFields(
            content, point_coords, point_labels, bbox, text, multimask_output, window=window
        )
        mask, _ = await predict_row(request, fields)
        return reply({"masks": [mask], "category_pred": [], "message": "Prediction succeeded"})

    @router.post("/predict_with_state", response_model=PredictStateAnswer, tags=["MedSAM-Agent"])
    async def predict_with_state(
        request: Request,
        image: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, BMP or WebP.")],
        previous_logits: Annotated[str, Form(description="Base64, float32.")],
        previous_logits_shape: Annotated[
            str | None, Form(description="JSON [1, h, w]; by default the backbone's.")
        ] = None,
        point_coords: Annotated[str | None, Form(description="JSON [[x, y], ...], pixels.")] = None,
        point_labels: Annotated[str | None, Form(description="JSON [1, 0, ...].")] = None,
        bbox: Annotated[str | None, Form(description="JSON [x1, y1, x2, y2], pixels.")] = None,
        text: Annotated[str | None, Form(description='JSON ["left kidney"].')] = None,
        multimask_output: Annotated[bool, Form(description="Three masks, the best kept.")] = False,
        window: Window = "",
    ) -> Response:
        """The same with the logits of an earlier answer, and new ones in this."""
        content = await image.read()
        fields = PredictFields(
            content,
            point_coords,
            point_labels,
            bbox,
            text,
            multimask_output,
            previous_logits,
            previous_logits_shape,
            window,
        )
        mask, logits = await predict_row(request, fields)
        return reply(
            {
                "masks": [mask],
                "category_pred": [],
                "message": "Prediction succeeded",
                "logits": base64.b64encode(logits.astype("<f4").tobytes()).decode(),
                "logits_shape": list(logits.shape),
            }
        )

    return router
