"""Bodies of requests and answers, from which the OpenAPI description is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Strict(BaseModel):
    """Unknown fields are refused: a misspelt one must not be ignored."""

    model_config = ConfigDict(extra="forbid")


class Picture(Strict):
    """An image: `picture`, or `pixels` with `size`."""

    picture: str | None = Field(
        None, description="Base64 of a PNG, JPEG, TIFF, BMP, WebP or PNM file, turned as EXIF says."
    )
    pixels: str | None = Field(None, description="Base64 of height x width x 3 bytes, RGB.")
    size: tuple[int, int] | None = Field(None, description="[height, width] of `pixels`.")
    window: str = Field(
        "", max_length=40, description="LOW,HIGH for a `picture` of more than 8 bits."
    )


class Row(Strict):
    """One mask to predict."""

    image: Hash | Annotated[int, Field(ge=0)] = Field(
        description="Content hash of the image, or its position among this request's `images`."
    )
    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = Field(
        None, description="[x1, y1, x2, y2] as fractions of width and height."
    )
    points: Annotated[list[tuple[Fraction, Fraction, bool]], FailFast()] = Field(
        [], max_length=256, description="[x, y, positive] each, in the order they were made."
    )
    mask_input: str | None = Field(
        None, description="Base64 of little-endian float32 logits of an earlier answer."
    )
    multimask: bool = Field(False, description="Predict three masks, keep the best predicted IoU.")
    text: str | None = Field(None, max_length=200, description="What to segment, in words.")


class EncodeRequest(Strict):
    """Images to be encoded, by hash where the service may hold them already."""

    backbone: str | None = Field(None, description="Fingerprint that the service must have.")
    hashes: Annotated[list[Hash], FailFast()] = []
    images: Annotated[list[Picture], FailFast()] = []


class ImageFacts(BaseModel):
    """An image that the service holds."""

    hash: Hash
    input_size: tuple[int, int] = Field(
        description="[height, width] that it takes up in the backbone's frame."
    )


class EncodeAnswer(BaseModel):
    """Images held now, those sent first and in order, and hashes that must be sent as pixels."""

    images: list[ImageFacts]
    missing: list[Hash]


class DecodeRequest(Strict):
    """Rows to be decoded."""

    backbone: str | None = Field(None, description="Fingerprint that the service must have.")
    images: Annotated[list[Picture], FailFast()] = []
    rows: Annotated[list[Row], FailFast()] = Field(min_length=1)
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="Of the logits in the answer; float16 halves it and rounds."
    )


class DecodeAnswer(BaseModel):
    """Low-resolution logits of every row."""

    shape: tuple[int, int, int] = Field(description="[rows, height, width]")
    dtype: Literal["float32", "float16"]
    logits: str = Field(description="Base64, little-endian.")
    iou: list[float] = Field(description="Predicted IoU of each row.")


class BackboneAnswer(BaseModel):
    """The backbone; see `medseg_gym.backbones.remote.wire.ServedFacts`."""

    name: str
    fingerprint: str
    prompt_kinds: list[str]
    trained_kinds: list[str]
    takes_mask_input: bool
    logits_size: tuple[int, int]
    framing: Literal["squashed", "padded"]
    frame_side: int
    version: str
    max_rows: int
    max_upload_bytes: int


class ErrorAnswer(BaseModel):
    """An error: the thing, the place and the way out."""

    detail: Any


class MissingAnswer(ErrorAnswer):
    """Images whose pixels must be sent (again)."""

    missing: list[Hash] = []


class PredictAnswer(BaseModel):
    """Masks as base64 PNG, 0 and 255; one, the best."""

    masks: list[str]
    category_pred: list[str] = Field([], description="Always empty: no backbone here names one.")
    message: str


class PredictStateAnswer(PredictAnswer):
    """A mask with the logits to send next time."""

    logits: str = Field(description="Base64, little-endian float32.")
    logits_shape: tuple[int, int, int] = Field(description="[1, height, width]")


class SessionCreated(BaseModel):
    """A new session."""

    session_id: str
    message: str
    image_size: tuple[int, int] = Field(description="[width, height]")


class SessionAnswer(PredictAnswer):
    """The mask after a prompt."""

    session_id: str
    round_number: int = Field(description="Requests that made a mask so far.")
    total_clicks: int = Field(description="Boxes and clicks so far.")


class SessionStatus(BaseModel):
    """Prompts and age of a session."""

    session_id: str
    round_number: int
    total_clicks: int
    clicks_history: list[tuple[int, int, int] | str]
    has_mask: bool
    created_at: str
    last_accessed: str
    image_size: tuple[int, int]


class SessionDeleted(BaseModel):
    """A session that is gone."""

    session_id: str
    message: str
    remaining_sessions: int


class SessionSummary(BaseModel):
    """A session in a list."""

    session_id: str
    round_number: int
    total_clicks: int
    created_at: str
    last_accessed: str


class SessionList(BaseModel):
    """The caller's sessions, oldest first."""

    total_sessions: int
    sessions: list[SessionSummary]


class ProbeAnswer(BaseModel):
    """Liveness or readiness."""

    status: Literal["ok"] = "ok"


class Health(BaseModel):
    """Health in the words of MedSAM-Agent's server."""

    status: Literal["healthy"] = "healthy"
    model_loaded: bool
    model_type: str
    device: str
    active_sessions: int
    timestamp: str
