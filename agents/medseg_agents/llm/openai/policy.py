"""OpenAIPolicy: plays a chat environment through a server.

Slots are asked at once, as many as `concurrency` allows. A conversation that the server refuses
fails its case alone; a server that is down or refuses everybody raises. Neither becomes a score.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai

from medseg_agents.llm.history import Dialogue
from medseg_agents.llm.openai.answers import AssistantTurn, read_completion
from medseg_agents.llm.openai.errors import ConversationError
from medseg_agents.llm.openai.loop_thread import LoopThread
from medseg_agents.llm.openai.messages import as_openai, data_url
from medseg_agents.llm.openai.options import DEFAULT_URL, OpenAIOptions
from medseg_agents.llm.openai.requests import ask
from medseg_agents.llm.openai.usage import Usage
from medseg_gym.envs.views.messages import Message
from medseg_gym.errors import PolicyError


@dataclass
class _Slot(Dialogue):
    generator: np.random.Generator = field(default_factory=np.random.default_rng)
    turns: list[AssistantTurn] = field(default_factory=list)

    def add(self, turn: AssistantTurn) -> str:
        """Keep the model's turn; return it as the environment takes it."""
        self.turns.append(turn)
        self.completions.append(turn.text)
        return turn.played


class OpenAIPolicy:
    """Plays a chat environment through a server.

    Args:
        model: Name of the model there.
        system: Messages that every conversation begins with (`envs.system_messages`).
        over: What the environment shows in a slot that has ended (`texts.over`); such slots are not
            asked.
        tool_schemas: Of the environment, sent under `native_tools`.
        options: See `OpenAIOptions`.
        image_keys: Entries of an observation that are the images of a turn, in order
            (`envs.view.image_keys`).

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
        image_keys: Sequence[str] = ("image",),
    ) -> None:
        self.model, self.system, self.over = model, list(system), over
        self.tool_schemas = list(tool_schemas)
        self.options = options or OpenAIOptions()
        self.name = f"openai:{model}"
        self.image_keys = tuple(image_keys)
        self.usage = Usage()
        self._key = os.environ.get(self.options.key_env, "")
        if not self._key and self.options.url.startswith(DEFAULT_URL):
            raise PolicyError(
                f"{self.name} needs an API key in the environment variable {self.options.key_env}, "
                "or another server: ?base_url=http://HOST:PORT/v1 or OPENAI_BASE_URL"
            )
        self._slots: dict[int, _Slot] = {}
        self._thread = LoopThread()
        self._client: openai.AsyncOpenAI | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide the answers beside the name; JSON."""
        names = ("temperature", "top_p", "max_tokens", "send_seed", "history", "native_tools")
        chosen = {name: getattr(self.options, name) for name in (*names, "detail")}
        return {"url": self.options.url, **chosen}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new conversations."""
        for slot, generator in zip(slots, generators, strict=True):
            self._slots[slot] = _Slot(generator=generator)

    def act(self, observations: dict[str, Any]) -> list[str | ConversationError]:
        """Ask for the answers of all slots; "" where it ended, failed or was never reset.

        Args:
            observations: The newest user turns: `text`, n str, and under each of `image_keys`
                n images, n x H x W x 3 uint8.

        Returns:
            Answers, some of them a `CutAnswer`, and a `ConversationError` where the server failed
            in that slot's conversation for good; it names the server, its message and the way out.

        Raises:
            ServerError: What failed would fail in every conversation.
        """
        texts = observations["text"]
        answers: list[str | ConversationError] = [""] * len(texts)
        asked = [s for s, text in enumerate(texts) if s in self._slots and text != self.over]
        for slot in asked:
            dialogue = self._slots[slot]
            dialogue.texts.append(texts[slot])
            dialogue.images.append(tuple(data_url(observations[k][slot]) for k in self.image_keys))
        requests = [self._request(self._slots[slot]) for slot in asked]
        results = self._thread.run(self._ask_all(requests)) if requests else []
        for slot, completion in zip(asked, results, strict=True):
            if isinstance(completion, ConversationError):
                answers[slot] = completion
                del self._slots[slot]  # nothing more is asked there
            else:
                dialogue = self._slots[slot]
                number = len(dialogue.turns)
                turn = read_completion(completion, number, self.options.max_tokens)
                answers[slot] = dialogue.add(turn)
        return answers

    def close(self) -> None:
        """Close the connections and stop the thread that asks; asking again opens new ones."""
        if self._client is not None:
            self._thread.run(self._client.close())
            self._client = None
        self._thread.close()

    # one step -----------------------------------------------------------------------------------
    def _request(self, slot: _Slot) -> dict[str, Any]:
        options = self.options
        messages, images = slot.shown(self.system, options.history)
        request: dict[str, Any] = {
            "model": self.model,
            "messages": as_openai(messages, images, slot.turns, options.detail),
            options.limit_name: options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": int(slot.generator.integers(2**31)) if options.send_seed else None,
            "tools": self.tool_schemas if options.native_tools else None,
        }
        return {name: value for name, value in request.items() if value is not None}

    async def _ask_all(
        self, requests: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any] | ConversationError]:
        if self._client is None:  # made in the loop that it is used in
            self._client = openai.AsyncOpenAI(
                base_url=self.options.url,
                api_key=self._key or "none",
                timeout=self.options.timeout,
                max_retries=0,  # `ask` asks again, for more reasons than the client knows
            )
        client, gate = self._client, asyncio.Semaphore(self.options.concurrency)

        async def one(request: dict[str, Any]) -> dict[str, Any] | ConversationError:
            async with gate:
                try:
                    return await ask(client, request, self.options, self.usage, self.model)
                except ConversationError as error:
                    return error

        tasks = [asyncio.ensure_future(one(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
