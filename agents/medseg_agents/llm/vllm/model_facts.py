"""Facts that a checkpoint's files state of its model, where the model itself lives elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gym.errors import PolicyError


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a checkpoint.

    Args:
        dtype: Of the stored weights, "float32" for example.
        end_tokens: That end a completion.
        forbidden: That no completion may hold.
        image_token: Place holder of images.
    """

    dtype: str
    end_tokens: list[int]
    forbidden: list[int]
    image_token: int


def model_facts(path: str | Path, processor: Any) -> ModelFacts:
    """Read the facts of a checkpoint; no weights are loaded.

    Args:
        path: Folder of a model.
        processor: Its processor.

    Raises:
        PolicyError: It is none of a chat model that takes images.
    """
    from transformers import AutoConfig, GenerationConfig

    from medseg_agents.llm.sampling import end_tokens, forbidden_tokens

    try:
        config = AutoConfig.from_pretrained(path)
        text = config.get_text_config()
        try:
            generation = GenerationConfig.from_pretrained(str(path))
        except OSError:  # there is no such file
            generation = GenerationConfig.from_model_config(config)
        image_token = config.image_token_id
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise PolicyError(f"{path}: no chat model that takes images ({error})") from None
    model = _Facade(config, generation, int(text.vocab_size))
    dtype = str(config.dtype or getattr(text, "dtype", None) or "float32").removeprefix("torch.")
    return ModelFacts(
        dtype, end_tokens(model, processor), forbidden_tokens(model, processor), int(image_token)
    )


@dataclass(frozen=True)
class _Facade:
    """As much of a model as `sampling` asks for."""

    config: Any
    generation_config: Any
    vocabulary: int

    def get_input_embeddings(self) -> Any:
        import torch

        return torch.nn.Embedding(self.vocabulary, 1, device="meta")
