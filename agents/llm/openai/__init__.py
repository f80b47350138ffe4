"""Models behind any server that speaks OpenAI's chat completions.

vLLM, SGLang, llama.cpp, `transformers serve` and hosted models alike. `options` says how a server
is asked, `messages` what it is shown, `answers` reads what comes back, `requests` asks again where
that helps and tells failures of one conversation from those of the server, and `policy` plays.
"""

from agents.llm.openai.contender import contender
from agents.llm.openai.errors import ConversationError, ServerError
from agents.llm.openai.options import OpenAIOptions
from agents.llm.openai.policy import OpenAIPolicy
from agents.llm.openai.usage import Usage

__all__ = [
    "ConversationError",
    "OpenAIOptions",
    "OpenAIPolicy",
    "ServerError",
    "Usage",
    "contender",
]
