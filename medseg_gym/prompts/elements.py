"""Arguments in elements: `<parameter=KEY>VALUE</parameter>`, `<arg_key>KEY</arg_key>...`."""

from __future__ import annotations

import re

from medseg_gym.prompts.lenient_json import UnreadableJson, read_value

_BEGIN = re.compile(
    r"<(?:[a-z]{1,12}:|\|[a-z]{1,12}\|)?(?:parameter|param)(?:\s{1,4}name)?\s{0,4}=\s{0,4}[\"']?"
    r"(?P<parameter>[\w.\-]{1,64})[\"']?[^<>{}\[\]]{0,80}>"
    r"|<arg_key>\s{0,8}(?P<key>[\w.\-]{1,64})\s{0,8}(?:</arg_key>)?\s{0,8}<arg_value>",
    re.IGNORECASE,
)
_END = re.compile(
    r"</(?:[a-z]{1,12}:|\|[a-z]{1,12}\|)?(?:parameter|param)>|</arg_value>", re.IGNORECASE
)


def read_elements(body: str) -> dict[str, object]:
    """Read the arguments of a call.

    Args:
        body: What stands between the marks of the call, behind its name.

    Returns:
        Values by key; what is JSON is read as JSON, anything else is text.

    Raises:
        ValueError: Words where an element should be, or a key twice with different values.
    """
    begins = list(_BEGIN.finditer(body))
    before = body[: begins[0].start()] if begins else body
    if before.strip():
        raise ValueError(f"an element is missing where {before.strip()[:40]!r} stands")
    parameters: dict[str, object] = {}
    for number, begin in enumerate(begins):
        limit = begins[number + 1].start() if number + 1 < len(begins) else len(body)
        end = _END.search(body, begin.end(), limit)
        value = _value(body[begin.end() : end.start() if end else limit])
        key = begin["parameter"] or begin["key"]
        if key in parameters and parameters[key] != value:
            raise ValueError(f"{key[:40]!r} is given twice")
        parameters[key] = value
    return parameters


def _value(text: str) -> object:
    text = text.strip()
    try:
        value, end, _ = read_value(text, 0)
    except UnreadableJson:
        return text
    return value if not text[end:].strip() else text
