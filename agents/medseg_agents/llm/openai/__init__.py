"""Models behind any server that speaks OpenAI's chat completions.

vLLM, SGLang, llama.cpp, `transformers serve` and hosted models alike. `options` says how a server
is asked, `messages` writes the conversation, `answers` reads completions, `requests` asks again
where that helps and tells failures of one conversation from those of the server, and `policy`
plays.
"""

from medseg_agents.llm.openai.errors import ConversationError, ServerError
from medseg_agents.llm.openai.options import OpenAIOptions
from medseg_agents.llm.openai.policy import OpenAIPolicy
from medseg_agents.llm.openai.policy_spec import policy_spec
from medseg_agents.llm.openai.usage import Usage

__all__ = [
    "ConversationError",
    "OpenAIOptions",
    "OpenAIPolicy",
    "ServerError",
    "Usage",
    "policy_spec",
]
