"""verl's interface of tools where verl is installed, else one like it."""

from __future__ import annotations

from typing import Any

__all__ = ["HAVE_VERL", "BaseTool", "ToolResponse", "rollout_trace_op", "tool_schema_of"]

try:
    from verl.tools.base_tool import BaseTool
    from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
    from verl.utils.rollout_trace import rollout_trace_op

    HAVE_VERL = True
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "verl":
        raise  # verl is there, and something that it needs is not

    from dataclasses import dataclass

    HAVE_VERL = False

    @dataclass
    class ToolResponse:  # type: ignore[no-redef]
        """Result of a tool, as verl's `ToolResponse`."""

        text: str | None = None
        image: list[Any] | None = None
        video: list[Any] | None = None

    class BaseTool:  # type: ignore[no-redef]
        """As verl's `BaseTool`, as far as it is used here."""

        def __init__(self, config: dict[str, Any], tool_schema: Any) -> None:
            self.config = config
            self.tool_schema = tool_schema or self.get_openai_tool_schema()
            self.name = self.tool_schema["function"]["name"]

        def get_openai_tool_schema(self) -> Any:
            """Return the function schema."""
            raise NotImplementedError

    def rollout_trace_op(function: Any) -> Any:
        """Return the function as it is."""
        return function


def tool_schema_of(schema: dict[str, Any]) -> Any:
    """Return an OpenAI function schema as verl wants it; the schema itself without verl."""
    return OpenAIFunctionToolSchema.model_validate(schema) if HAVE_VERL else schema
