"""Read JSON bodies, and list what is wrong with them in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from medseg_gym.serving.errors import ServiceError

M = TypeVar("M", bound=BaseModel)

_MOST_VALUES = 1 << 18  # JSON values of a body, each of which takes far more memory than its text
_MOST_FAULTS = 20  # told of a body that does not fit
_LONGEST_WORDS = 200  # of a fault, and of a name in its place


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
    if sum(body.count(mark) for mark in (b",", b"[", b"{", b":")) > _MOST_VALUES:
        raise ServiceError(f"the body holds more than {_MOST_VALUES} values; send several", 413)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MOST_VALUES >> 8:  # listing them would cost more than the body
            count = error.error_count()
            raise ServiceError(f"the body does not fit its description in {count} places") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid(
            list_faults([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])
        ) from None


def list_faults(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is told of faults as pydantic lists them: where and what, the first of them, cut.

    What was sent is left out: it may be huge, or no JSON (NaN, bytes). A place may hold names that
    the client chose.
    """
    told = [
        {
            "type": fault["type"],
            "loc": [part if isinstance(part, int) else part[:_LONGEST_WORDS] for part in where],
            "msg": str(fault["msg"])[:_LONGEST_WORDS],
        }
        for fault in faults[:_MOST_FAULTS]
        for where in [list(fault["loc"])[:_MOST_FAULTS]]
    ]
    if len(faults) > _MOST_FAULTS:
        left = f"and {len(faults) - _MOST_FAULTS} more faults"
        told.append({"type": "more", "loc": ["body"], "msg": left})
    return told
