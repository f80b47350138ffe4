"""Options that choose the generation engine; training and playing have the same ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medseg_gym.errors import PolicyError
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """Which engine generates, and how it is run."""

    topic: ClassVar[str] = "Generation"

    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates: "transformers" in this process, or "vllm" in a process of its own, with a
    Python environment of its own."""

    vllm_python: str = ""
    """Python of the environment that has vLLM; "" is the environment variable MEDSEG_VLLM_PYTHON,
    else this Python where it has vLLM."""

    vllm_options: str = ""
    """Further arguments of `vllm.LLM`, as "max_model_len=16384;gpu_memory_utilization=0.4"; values
    are JSON, or text where they are not."""

    vllm_timeout: float = 600.0
    """Seconds that vLLM may take over one turn of all slots; later is an error."""

    stop_strings: tuple[str, ...] = ()
    """Texts that end a completion beside its end token, such as "</tool_call>"; vLLM alone."""

    def vllm_arguments(self) -> dict[str, Any]:
        """Return `vllm_options` as a mapping.

        Raises:
            PolicyError: Not of the form "name=value;name=value".
        """
        arguments: dict[str, Any] = {}
        for part in filter(None, self.vllm_options.split(";")):
            name, equals, text = part.partition("=")
            if not (equals and name.strip().isidentifier()):
                raise PolicyError(
                    f"vllm_options: {part!r} is not name=value; write "
                    '"max_model_len=16384;gpu_memory_utilization=0.4"'
                )
            try:
                arguments[name.strip()] = json.loads(text)
            except ValueError:
                words = {"True": True, "False": False, "None": None}
                arguments[name.strip()] = words.get(text, text)
        return arguments

    def check_engine(self) -> None:
        """Check these options.

        Raises:
            PolicyError: One is out of range, or the engine does not have it.
        """
        if self.engine not in ("transformers", "vllm"):
            raise PolicyError(f'engine must be "transformers" or "vllm", got {self.engine!r}')
        if not self.vllm_timeout > 0:
            raise PolicyError(f"vllm_timeout must be > 0 seconds, got {self.vllm_timeout}")
        if self.stop_strings and self.engine != "vllm":
            raise PolicyError('stop_strings need engine="vllm"; end tokens always stop')
        self.vllm_arguments()
