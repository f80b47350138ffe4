"""Options of generation engines; those that choose one are the same in training and in playing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medseg_agents.llm.history import read_history
from medseg_gym.errors import PolicyError
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """Settings of the engine that generates."""

    topic: ClassVar[str] = "Generation"

    engine: Literal["transformers", "vllm"] = "transformers"
    """Generation engine: "transformers" in this process, or "vllm" in a process of its own, with a
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


@dataclass(frozen=True, kw_only=True)
class ModelOptions(EngineOptions):
    """Settings of a model: loading, conversation, and sampling of its completions."""

    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn."""

    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""

    top_k: int = 0
    """Draw among so many likeliest tokens; 0 is all."""

    max_new_tokens: int = 128
    """Of an answer."""

    history: str | int = "all"
    """"all" images, the newest k, or "none" (see `history.read_history`)."""

    batch: int | None = None
    """Slots that the model answers at once; None is all of them."""

    keep_cache: bool = True
    """Keep keys and values between turns where that is exact (see `turn_cache`)."""

    dtype: str = "auto"
    """Of the weights: "auto" as they are stored, or a torch type's name."""

    device_map: str | None = None
    """As transformers takes it, such as "auto" or "cuda:1"; None is an accelerator where there is
    one, else the CPU.
    """

    merge: bool = True
    """Fold adapters into the weights, which answers faster."""

    base: str | None = None
    """Folder of the adapters' base model; None is the one that they name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", read_history(self.history))
        self.check_engine()
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise PolicyError(
                "sampling needs temperature >= 0, 0 < top_p <= 1 and top_k >= 0, got "
                f"{self.temperature}, {self.top_p}, {self.top_k}"
            )
        if self.max_new_tokens < 1 or (self.batch is not None and self.batch < 1):
            raise PolicyError(
                f"need max_new_tokens, batch >= 1, got {self.max_new_tokens}, {self.batch}"
            )
