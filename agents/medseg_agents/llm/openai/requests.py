"""Asking a server: again where that helps, and for how long; else the failure, in one line."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from medseg_agents.llm.openai.answers import find_defect, read_json
from medseg_agents.llm.openai.errors import ConversationError, ServerError
from medseg_agents.llm.openai.options import OpenAIOptions
from medseg_agents.llm.openai.usage import Usage

_FIRST_WAIT, _LONGEST_GROWN = 0.5, 8.0  # seconds; each wait is twice the one before
_EVERYBODY = (401, 404, 405)
"""A wrong key, model or address: what hits one conversation hits all."""


class NoAnswer(Exception):
    """A server answered with status 200 and sent no completion."""


async def ask(
    client: openai.AsyncOpenAI,
    request: Mapping[str, Any],
    options: OpenAIOptions,
    usage: Usage,
    model: str,
) -> dict[str, Any]:
    """Ask until there is an answer.

    Args:
        client: That does not ask again by itself.
        request: Arguments of `chat.completions.create`.
        options: How often, how long.
        usage: Counts of requests and tokens, which are added to.
        model: For messages.

    Returns:
        The completion as the server sent it, with a message in it.

    Raises:
        ServerError: What fails one conversation fails all.
        ConversationError: This one failed for good.
    """
    grown = _FIRST_WAIT
    for tries in range(1, options.retries + 2):
        try:
            completion = await _try(client, request)
            usage.count(completion, options.price_in, options.price_out)
            return completion
        except (openai.OpenAIError, NoAnswer) as error:
            wait = wait_after(error, grown)
            if wait is None or wait > options.longest_wait or tries > options.retries:
                if _concerns_all(error, usage):
                    raise ServerError(_explain(error, options, model, tries, wait)) from error
                usage.failed += 1
                raise ConversationError(_explain(error, options, model, tries, wait)) from error
        usage.repeated += 1
        grown = min(2 * grown, _LONGEST_GROWN)
        await asyncio.sleep(wait)
    raise AssertionError("unreachable")


async def _try(client: openai.AsyncOpenAI, request: Mapping[str, Any]) -> dict[str, Any]:
    # The raw answer, for the client takes whatever JSON it gets for a completion.
    raw = await client.chat.completions.with_raw_response.create(**request)
    text = raw.http_response.text
    try:
        completion = read_json(text)
    except ValueError:
        raise NoAnswer(f"an answer without a message, no JSON: {text[:200]!r}") from None
    defect = find_defect(completion)
    if defect:
        raise NoAnswer(defect)
    assert isinstance(completion, dict)
    return completion


def wait_after(error: Exception, grown: float) -> float | None:
    """Seconds to wait before a further try; None where none is of use.

    Args:
        error: Of the try before.
        grown: What to wait where the server does not say.
    """
    if not isinstance(error, openai.APIStatusError):
        return grown  # nobody there, a time-out, a broken connection, or no answer
    headers = error.response.headers
    again = error.status_code in (408, 409, 429) or error.status_code >= 500
    again = {"true": True, "false": False}.get(headers.get("x-should-retry", ""), again)
    if not again:
        return None
    asked = read_retry_after(headers, time.time())
    return grown if asked is None else asked


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a server asks to wait: milliseconds, seconds or an HTTP date.

    Args:
        headers: Of its answer.
        now: Seconds since 1970.

    Returns:
        At least 0; None where it asks for nothing that can be read.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    except (KeyError, ValueError, OverflowError):
        return None


def _words_of(error: openai.APIStatusError) -> str:
    """Return a server's message about its refusal, in OpenAI's form or another."""
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return message if isinstance(message, str) and message else error.response.text or error.message


def _concerns_all(error: Exception, usage: Usage) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.status_code in _EVERYBODY
    # A server that was never there is an address that is wrong; one that was may come back.
    return usage.requests == 0 and _never_reached(error)


def _never_reached(error: Exception) -> bool:
    """Return whether no connection was made at all."""
    if not isinstance(error, openai.APIConnectionError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        # By name: which HTTP library openai uses depends on its version.
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _explain(
    error: Exception, options: OpenAIOptions, model: str, tries: int, wait: float | None
) -> str:
    """Explain a failure in one line, with the way out."""
    times = f"{tries} time{'' if tries == 1 else 's'}"
    if isinstance(error, openai.APITimeoutError):
        what = f"no answer within {options.timeout:g} s, {times}"
        way = "give a longer timeout=, or fewer at once (concurrency=)"
    elif isinstance(error, openai.APIConnectionError):
        reached = "not reached" if _never_reached(error) else "the connection broke"
        what = f"{reached}, tried {times} ({error.__cause__ or error})"
        way = "is the server running, and is the address right? The same command goes on later"
    elif isinstance(error, openai.APIStatusError):
        what = f"HTTP {error.status_code}: {_words_of(error)[:300]}"
        way = {
            400: "see the server's own log",
            401: f"is the key in {options.key_env} right?",
            403: f"may the key in {options.key_env} use this model?",
            404: "does the server have this model, and does base_url end in /v1?",
            429: "ask for less at once (concurrency=) or later; nothing played is lost",
        }.get(error.status_code, "see the server's own log; the same command goes on later")
        if wait is not None and wait > options.longest_wait:
            way = (
                f"it asks to wait {wait:.0f} s, above longest_wait={options.longest_wait:g}; {way}"
            )
    else:
        what = f"{error}"[:400]
        way = f"asked {times}; is this a server of OpenAI's chat completions?"
    return " ".join(f"model {model!r} at {options.url}: {what}; {way}".split())
