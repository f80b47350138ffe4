"""Parse JSON bodies, and describe their faults briefly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from medseg_gym.serving.errors import ServiceError

M = TypeVar("M", bound=BaseModel)

_MAX_VALUES = 1 << 18  # JSON values of a body, each of which takes far more memory than its text
_MAX_FAULTS = 20  # listed of a body that does not fit
_MAX_LENGTH = 200  # of a message, and of a name in a place


class Invalid(ServiceError):
    """A body that does not fit its description.

    Args:
        detail: One entry per fault, as pydantic lists them, without what was sent.
    """

    def __init__(self, detail: list) -> None:
        super().__init__("the body does not fit its description")
        self.detail = detail


def parse(model: type[M], body: bytes) -> M:
    """Read a JSON body.

    Raises:
        Invalid: It does not fit.
        ServiceError: It holds more values than any request has.
    """
    # Base64, which is most of a body, has none of these characters.
    if sum(body.count(mark) for mark in (b",", b"[", b"{", b":")) > _MAX_VALUES:
        raise ServiceError(f"the body holds more than {_MAX_VALUES} values; send several", 413)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_VALUES >> 8:  # listing them would cost more than the body
            count = error.error_count()
            raise ServiceError(f"the body does not fit its description in {count} places") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid(
            list_faults([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])
        ) from None


def list_faults(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shorten the faults that pydantic lists: the first of them, their places and messages cut.

    The values that were sent are left out: they may be huge, or no JSON (NaN, bytes). A place may
    hold names that the client chose.
    """
    listed = [
        {
            "type": fault["type"],
            "loc": [key if isinstance(key, int) else key[:_MAX_LENGTH] for key in where],
            "msg": str(fault["msg"])[:_MAX_LENGTH],
        }
        for fault in faults[:_MAX_FAULTS]
        for where in [list(fault["loc"])[:_MAX_FAULTS]]
    ]
    if len(faults) > _MAX_FAULTS:
        left = f"and {len(faults) - _MAX_FAULTS} more faults"
        listed.append({"type": "more", "loc": ["body"], "msg": left})
    return listed
