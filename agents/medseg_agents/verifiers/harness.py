"""The program that asks the model: one request of a chat completion for every turn.

The programs that come with `verifiers` are scripts which it installs and runs for every rollout. A
conversation needs none of that, so this one asks in the process of the run.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import openai
import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.errors import MODEL_TRANSPORT_ERROR_EXIT_CODE

from medseg_agents.verifiers.taskset import PLUGIN


@cache
def _certificates() -> ssl.SSLContext:
    """Read the machine's certificates once: a client is made in every turn."""
    return ssl.create_default_context()


class MedSegHarnessConfig(vf.HarnessConfig):
    """Settings of the program that asks the model."""

    id: str = PLUGIN

    native_tools: bool = False
    """Send the calls as tool schemas; calls that come back as `tool_calls` are read in any case."""

    retries: int = Field(2, ge=0)
    """Further tries of a request after a failure that may pass."""


class MedSegHarness(vf.Harness[MedSegHarnessConfig]):
    """Asks for one completion a turn, with the whole conversation before it."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask for one completion; `verifiers` keeps it in the trace.

        Args:
            ctx: The model.
            trace: Of the rollout.
            runtime: Not used.
            endpoint: Of the server in front of the model.
            secret: Key for it.
            mcp_urls: Not used: the calls belong to the environment.
            data: The task, with the conversation so far as its prompt.
        """
        system, prompt = self.resolve_prompt(data)
        messages = [] if system is None else [{"role": "system", "content": system}]
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or []]
        request: dict[str, Any] = {"model": ctx.model, "messages": messages}
        if self.config.native_tools:
            request["tools"] = getattr(data, "tools", [])
        client = openai.AsyncOpenAI(
            base_url=endpoint,
            api_key=secret,
            max_retries=self.config.retries,
            http_client=openai.DefaultAsyncHttpxClient(verify=_certificates(), timeout=None),
        )
        async with client:
            try:
                await client.chat.completions.create(**request)
            except openai.APIStatusError as error:
                return vf.ProgramResult(exit_code=1, stdout="", stderr=str(error))
            except openai.APIConnectionError as error:
                return vf.ProgramResult(
                    exit_code=MODEL_TRANSPORT_ERROR_EXIT_CODE, stdout="", stderr=str(error)
                )
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")
