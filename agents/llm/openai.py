"""OpenAIPolicy: a model behind any server that speaks OpenAI's chat completions.

vLLM, SGLang, llama.cpp, `transformers serve` and hosted models alike. Slots are asked at once, as
many as `concurrency` allows. A server that is down, refuses or answers nonsense raises; it never
becomes a score.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import openai
from PIL import Image

from agents.contenders import Contender
from agents.llm.history import Dialogue, read_history
from agents.named_options import read_named_options
from medseg_gym.envs.chat_view import Message
from medseg_gym.errors import PolicyError

DEFAULT_URL = "https://api.openai.com/v1"


class ServerError(PolicyError):
    """A model's server cannot be reached, refuses, or answers what is no answer."""


@dataclass(frozen=True, kw_only=True)
class OpenAIOptions:
    """How a server is asked.

    Args:
        base_url: Where it is, up to "/v1"; None takes `OPENAI_BASE_URL`, else OpenAI's own.
        key_env: Environment variable with the API key. Without it only servers other than OpenAI's
            are asked, with a key that means nothing.
        temperature: 0 takes the likeliest token; None leaves it to the server, as models that
            reason may demand.
        top_p: None leaves it to the server.
        max_tokens: Of an answer.
        limit_name: How the server calls that limit; models that reason at OpenAI want
            "max_completion_tokens".
        send_seed: Send a seed that depends on the policy's seed, case and turn, so that a server
            that honours it draws the same again.
        history: "all" pictures, the newest k, or "none" (see `history.read_history`).
        native_tools: Send the tool schemas beside the messages. Calls that come back as
            `tool_calls`, with or without this, are read like those in the text.
        detail: "low", "high" or "auto" for servers that know picture detail; None says nothing.
        concurrency: Requests under way at once, at least 1.
        timeout: Seconds for one try.
        retries: Further tries after 408, 409, 429, 5xx, a broken connection or a time-out, with
            growing waits or as long as the server says.
        price_in: Dollars for a million prompt tokens.
        price_out: Dollars for a million tokens of answers.
    """

    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    top_p: float | None = None
    max_tokens: int = 512
    limit_name: str = "max_tokens"
    send_seed: bool = True
    history: str | int = "all"
    native_tools: bool = False
    detail: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", read_history(self.history))
        if self.concurrency < 1 or self.max_tokens < 1 or self.timeout <= 0 or self.retries < 0:
            raise PolicyError(
                "need concurrency, max_tokens >= 1, timeout > 0 and retries >= 0, got "
                f"{self.concurrency}, {self.max_tokens}, {self.timeout}, {self.retries}"
            )
        if self.detail not in (None, "low", "high", "auto"):
            raise PolicyError(f"detail must be low, high or auto, got {self.detail!r}")

    @property
    def url(self) -> str:
        """Where the server is."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL


@dataclass
class Usage:
    """What was asked and what it cost.

    Args:
        requests: Answered.
        prompt_tokens: Told to the model, pictures included, as far as the server counts them.
        answer_tokens: Said by it.
        uncounted: Answers of a server that said nothing about tokens.
        cut_off: Answers that ran into the limit of tokens.
        cost: Dollars, by the prices in the options.
    """

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    uncounted: int = 0
    cut_off: int = 0
    cost: float = 0.0

    def __str__(self) -> str:
        """One line."""
        line = f"{self.requests} requests, {self.prompt_tokens} + {self.answer_tokens} tokens"
        line += f", ${self.cost:.4f}" if self.cost else ""
        line += f", {self.uncounted} not counted by the server" if self.uncounted else ""
        return line + (f", {self.cut_off} cut off at the limit" if self.cut_off else "")


@dataclass
class _Slot(Dialogue):
    generator: np.random.Generator = field(default_factory=np.random.default_rng)


class OpenAIPolicy:
    """Plays `MedSegChat-v0` through a server.

    Args:
        model: Name of the model there.
        system: Messages that every conversation begins with (`envs.system_messages`).
        over: What the environment shows in a slot that has ended (`texts.over`); such slots are not
            asked.
        tool_schemas: Of the environment, sent under `native_tools`.
        options: See `OpenAIOptions`.

    Raises:
        PolicyError: No API key where one is needed.
    """

    sees_truth = False

    def __init__(
        self,
        model: str,
        system: Sequence[Message] = (),
        over: str | None = None,
        tool_schemas: Sequence[dict[str, Any]] = (),
        options: OpenAIOptions | None = None,
    ) -> None:
        self.model, self.system, self.over = model, list(system), over
        self.tool_schemas = list(tool_schemas)
        self.options = options or OpenAIOptions()
        self.name = f"openai:{model}"
        self.usage = Usage()
        self._key = os.environ.get(self.options.key_env, "")
        if not self._key and self.options.url.startswith(DEFAULT_URL):
            raise PolicyError(
                f"{self.name} needs an API key in the environment variable {self.options.key_env}, "
                "or another server: ?base_url=http://HOST:PORT/v1 or OPENAI_BASE_URL"
            )
        self._slots: dict[int, _Slot] = {}
        self._caller = _Caller()
        self._client: openai.AsyncOpenAI | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the answers beside the name; JSON."""
        names = ("temperature", "top_p", "max_tokens", "send_seed", "history", "native_tools")
        chosen = {name: getattr(self.options, name) for name in (*names, "detail")}
        return {"url": self.options.url, **chosen}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new conversations."""
        for slot, generator in zip(slots, generators, strict=True):
            self._slots[slot] = _Slot(generator=generator)

    def act(self, observations: dict[str, Any]) -> list[str]:
        """Answers of all slots; "" for those that have ended or were never reset.

        Args:
            observations: `text`, n str, and `image`, n x P x P x 3 uint8: the newest user turns.

        Raises:
            ServerError: A request failed for good; it names the server, what it said and the way
                out.
        """
        texts, images = observations["text"], observations["image"]
        answers = [""] * len(texts)
        asked = [s for s, text in enumerate(texts) if s in self._slots and text != self.over]
        for slot in asked:
            dialogue = self._slots[slot]
            dialogue.texts.append(texts[slot])
            dialogue.pictures.append(data_url(images[slot]))
        requests = [self._request(self._slots[slot]) for slot in asked]
        said = self._caller.run(self._ask_all(requests)) if requests else []
        for slot, answer in zip(asked, said, strict=True):
            self._slots[slot].answers.append(answer)
            answers[slot] = answer
        return answers

    def close(self) -> None:
        """Close the connections and stop the thread that asks; asking again opens new ones."""
        if self._client is not None:
            self._caller.run(self._client.close())
            self._client = None
        self._caller.close()

    # one step -----------------------------------------------------------------------------------
    def _request(self, slot: _Slot) -> dict[str, Any]:
        options = self.options
        messages, pictures = slot.shown(self.system, options.history)
        request: dict[str, Any] = {
            "model": self.model,
            "messages": as_openai(messages, pictures, options.detail),
            options.limit_name: options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": int(slot.generator.integers(2**31)) if options.send_seed else None,
            "tools": self.tool_schemas if options.native_tools else None,
        }
        return {name: value for name, value in request.items() if value is not None}

    async def _ask_all(self, requests: Sequence[dict[str, Any]]) -> list[str]:
        if self._client is None:  # made in the loop that it is used in
            self._client = openai.AsyncOpenAI(
                base_url=self.options.url,
                api_key=self._key or "none",
                timeout=self.options.timeout,
                max_retries=self.options.retries,
            )
        gate = asyncio.Semaphore(self.options.concurrency)
        tasks = [asyncio.ensure_future(self._ask(self._client, gate, one)) for one in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(
        self, client: openai.AsyncOpenAI, gate: asyncio.Semaphore, request: dict[str, Any]
    ) -> str:
        async with gate:
            try:
                completion = await client.chat.completions.create(**request)
            except openai.OpenAIError as error:
                raise self._failure(error) from error
            except (ValueError, TypeError) as error:  # no JSON, say
                raise self._failure(error) from error
        choices = getattr(completion, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise self._failure(f"an answer without a message: {str(completion)[:200]}")
        self._count(completion)
        return _text_of(choices[0].message)

    def _count(self, completion: Any) -> None:
        usage, found = self.usage, getattr(completion, "usage", None)
        usage.requests += 1
        usage.cut_off += completion.choices[0].finish_reason == "length"
        if found is None:
            usage.uncounted += 1
            return
        usage.prompt_tokens += found.prompt_tokens or 0
        usage.answer_tokens += found.completion_tokens or 0
        usage.cost = (
            usage.prompt_tokens * self.options.price_in
            + usage.answer_tokens * self.options.price_out
        ) / 1e6

    def _failure(self, error: Exception | str) -> ServerError:
        """What went wrong, in one line, with the way out."""
        tries = self.options.retries + 1
        if isinstance(error, openai.APITimeoutError):
            what = f"no answer within {self.options.timeout:g} s, {tries} times"
            way = "give a longer timeout=, or fewer at once (concurrency=)"
        elif isinstance(error, openai.APIConnectionError):
            what = f"not reached in {tries} tries ({error.__cause__ or error})"
            way = "is the server running, and is the address right? The same command goes on later"
        elif isinstance(error, openai.APIStatusError):
            what = f"HTTP {error.status_code}: {str(error.message)[:300]}"
            way = {
                401: f"is the key in {self.options.key_env} right?",
                403: f"may the key in {self.options.key_env} use this model?",
                404: "does the server have this model, and does base_url end in /v1?",
                429: "ask for less at once (concurrency=) or later; nothing played is lost",
            }.get(error.status_code, "see the server's own log; the same command goes on later")
        else:
            what, way = f"{error}"[:400], "is this a server of OpenAI's chat completions?"
        return ServerError(f"model {self.model!r} at {self.options.url}: {what}; {way}")


class _Caller:
    """A thread with an event loop, so that asking works under a running loop (Jupyter) too."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Any) -> Any:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="openai", daemon=True
            )
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None


def data_url(image: np.ndarray) -> str:
    """An image, H x W x 3 uint8, as a data URL with PNG in base64."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_openai(
    messages: Sequence[Message], pictures: Sequence[str], detail: str | None = None
) -> list[dict[str, Any]]:
    """Messages as OpenAI's API takes them.

    Args:
        messages: See `medseg_gym.envs.chat_view.Message`.
        pictures: Data URLs of their image parts, in order.
        detail: Of the pictures.

    Returns:
        Messages with `image_url` parts; what is words alone is one str.
    """
    urls = iter(pictures)
    written: list[dict[str, Any]] = []
    for message in messages:
        parts = message["content"]
        if any(part["type"] == "image" for part in parts):
            extra = {} if detail is None else {"detail": detail}
            content: Any = [
                part
                if part["type"] == "text"
                else {"type": "image_url", "image_url": {"url": next(urls), **extra}}
                for part in parts
            ]
        else:
            content = "".join(part["text"] for part in parts)
        written.append({"role": message["role"], "content": content})
    return written


def _text_of(message: Any) -> str:
    """What was said, with calls that the server took out of the text put back into it."""
    said = [message.content or getattr(message, "refusal", None) or ""]
    for call in getattr(message, "tool_calls", None) or []:
        function = getattr(call, "function", None)
        if function is not None:
            call = {"name": function.name, "arguments": function.arguments or "{}"}
            said.append(f"<tool_call>{json.dumps(call)}</tool_call>")
    return "".join(said)


def contender(argument: str) -> Contender:
    """The contender "openai:MODEL?option=value&...", see `OpenAIOptions` and `CHAT_VIEW`.

    Raises:
        PolicyError: No model, or an option that does not exist or cannot have that value.
    """
    read = read_named_options("openai", argument, OpenAIOptions)
    options = OpenAIOptions(**read.policy)

    def build(envs: Any) -> OpenAIPolicy:
        view = envs.stage.view
        return OpenAIPolicy(
            read.name, view.system_messages, view.texts.over, view.tool_schemas, options
        )

    return Contender(f"openai:{argument}", build, "MedSegChat-v0", read.view)
