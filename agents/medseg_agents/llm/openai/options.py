"""Settings of a model's server."""

from __future__ import annotations

import os
from dataclasses import dataclass

from medseg_agents.llm.history import read_history
from medseg_gym.errors import PolicyError

DEFAULT_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, kw_only=True)
class OpenAIOptions:
    """Settings of a model's server."""

    base_url: str | None = None
    """Address of the server, up to "/v1"; None takes `OPENAI_BASE_URL`, else OpenAI's own."""

    key_env: str = "OPENAI_API_KEY"
    """Environment variable with the API key. Without it only servers other than OpenAI's are asked,
    with a key that means nothing.
    """

    temperature: float | None = 0.0
    """0 takes the likeliest token; None leaves it to the server, as models that reason may demand.
    """

    top_p: float | None = None
    """None leaves it to the server."""

    max_tokens: int = 512
    """Of an answer, thoughts included. One that runs into it before it held a call is a lost step,
    which says so.
    """

    limit_name: str = "max_tokens"
    """The server's name of that limit; models that reason at OpenAI want "max_completion_tokens".
    """

    send_seed: bool = True
    """Send a seed that depends on the policy's seed, case and turn, so that a server that honours
    it draws the same again.
    """

    history: str | int = "all"
    """"all" images, the newest k, or "none" (see `history.read_history`)."""

    native_tools: bool = False
    """Send the tool schemas beside the messages. Calls that come back as `tool_calls`, with or
    without this, are read like those in the text, and go back into the conversation as they came.
    """

    detail: str | None = None
    """"low", "high" or "auto" for servers that know the detail of an image; None says nothing."""

    concurrency: int = 8
    """Requests under way at once, at least 1."""

    timeout: float = 120.0
    """Seconds for one try."""

    retries: int = 5
    """Further tries after 408, 409, 429, 5xx, a broken connection, a time-out or what is no answer,
    with growing waits or as long as the server says.
    """

    longest_wait: float = 120.0
    """Seconds that are waited at most before a further try. Where a server asks for more, it is not
    asked again.
    """

    price_in: float = 0.0
    """Dollars for a million prompt tokens."""

    price_out: float = 0.0
    """Dollars for a million tokens of completions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", read_history(self.history))
        if self.concurrency < 1 or self.max_tokens < 1:
            raise PolicyError(
                f"need concurrency, max_tokens >= 1, got {self.concurrency}, {self.max_tokens}"
            )
        # Written so that NaN is refused too.
        if not (self.timeout > 0 and self.retries >= 0 and self.longest_wait >= 0):
            raise PolicyError(
                "need timeout > 0, retries >= 0 and longest_wait >= 0, got "
                f"{self.timeout}, {self.retries}, {self.longest_wait}"
            )
        if self.detail not in (None, "low", "high", "auto"):
            raise PolicyError(f"detail must be low, high or auto, got {self.detail!r}")

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
