"""A small vision-language model of Qwen3-VL's architecture, built from nothing and offline.

Two million parameters, randomly initialised, with a tokenizer made from this suite's own texts. The
files have exactly Qwen3-VL's layout, so that what runs with it on a CPU runs with a real checkpoint
by changing the path. It knows nothing: `medseg_agents.sft.train` teaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as splits
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.utils import logging
from trl.chat_template_utils import qwen3_vl_chat_template

from medseg_gym.errors import PolicyError

# Qwen's own split of text before byte-pair encoding, and its special tokens.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_END, _TURN_END, _IMAGE, _VIDEO = "<|endoftext|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"
_VISION_START, _VISION_END = "<|vision_start|>", "<|vision_end|>"
_SPECIAL = (
    *(_END, "<|im_start|>", _TURN_END, _VISION_START, _VISION_END, "<|vision_pad|>"),
    *(_IMAGE, _VIDEO),
)
_QWEN_WORDS = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)
# What is the same in every call is one token each: a call costs 22 tokens instead of 38, and most
# of a tiny model's time goes into tokens. The text is unchanged.
CALL_WORDS = (
    '{"name": "add_bbox", "arguments": {"bbox_2d": [',
    '{"name": "add_point", "arguments": {"point_2d": [',
    '], "point_type": "positive"}}',
    '], "point_type": "negative"}}',
    '{"name": "undo_action", "arguments": {}}',
    '{"name": "clear_action", "arguments": {}}',
    '{"name": "stop_action", "arguments": {}}',
    "]}}",
    ", ",
)
VOLUME_CALL_WORDS = (
    '{"name": "add_bbox", "arguments": {"slice": ',
    '{"name": "add_point", "arguments": {"slice": ',
    ', "bbox_2d": [',
    ', "point_2d": [',
    '{"name": "propagate_action", "arguments": {}}',
    '{"name": "look_action", "arguments": {"slice": ',
    *CALL_WORDS[2:],
)
"""The same for the calls of volumes."""

_NUMBER_SCALE = 0.04  # of the waves of numbers, about that of other words' embeddings


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Size of the model."""

    image_size: int = 128
    """Side of the image, in pixels; a multiple of `patch` times 2."""

    other_images: tuple[tuple[int, int], ...] = ()
    """Height and width, in pixels, of the further images of a turn; multiples of `patch` times 2.
    All images are read at their size."""

    patch: int = 8
    """Side of a patch; four patches are an image token."""

    vocabulary: int = 512
    """Tokens of the byte-pair encoding."""

    hidden: int = 128
    """Width, of text and vision alike."""

    layers: int = 4
    """Of the language model."""

    vision_layers: int = 4
    """Of the vision tower."""

    heads: int = 4
    """Of both; the language model has half as many for keys and values."""

    numbers: int = 0
    """Whole numbers below this are one token each, and begin so that neighbours are alike; 0 writes
    numbers digit by digit, as Qwen does. Few cells (coordinates="pixel") are learned much sooner
    so."""

    seed: int = 0
    """Of the weights."""

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % (2 * self.patch):
            raise PolicyError(
                f"image_size must be at least 32 and a multiple of {2 * self.patch} (two patches), "
                f"got {self.image_size}"
            )
        if any(side < 32 or side % (2 * self.patch) for one in self.other_images for side in one):
            raise PolicyError(
                f"sides of a turn's other images must be at least 32 and multiples of "
                f"{2 * self.patch} (two patches), got {self.other_images}"
            )
        if self.hidden % (4 * self.heads) or self.hidden // self.heads < 16:
            raise PolicyError(
                f"hidden must be a multiple of four times heads, with at least 16 a head, got "
                f"{self.hidden} for {self.heads} heads"
            )


def build_tokenizer(
    texts: Sequence[str], vocabulary: int = 512, calls: Sequence[str] = CALL_WORDS
) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding as Qwen's, made from given texts; any text can be written.

    Args:
        texts: What the model will read and write.
        vocabulary: Tokens, at least 300, before the words of tool calls are added.
        calls: Those words: what is the same in every call, and whatever else is one token each.
    """
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = splits.Sequence(
        [
            splits.Split(Regex(_SPLIT), "isolated", False),
            splits.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=splits.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    core.train_from_iterator([*texts, "system user assistant"], trainer)
    core.add_tokens(
        [AddedToken(word, special=False, normalized=False) for word in (*_QWEN_WORDS, *calls)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=_TURN_END,
        pad_token=_END,
        additional_special_tokens=list(_SPECIAL[1:]),
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
    )


def build_processor(
    texts: Sequence[str], config: TinyConfig, calls: Sequence[str] = CALL_WORDS
) -> Qwen3VLProcessor:
    """Tokenizer, image and video processors and Qwen3-VL's chat template."""
    pixels = [config.image_size**2, *(height * width for height, width in config.other_images)]
    options: dict[str, Any] = {
        "patch_size": config.patch,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": min(pixels), "longest_edge": max(pixels)},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**options),
        tokenizer=build_tokenizer(texts, config.vocabulary, (*calls, *_numbers(config))),
        video_processor=Qwen3VLVideoProcessor(**options),
        chat_template=qwen3_vl_chat_template,
    )


def build_model(processor: Qwen3VLProcessor, config: TinyConfig) -> Qwen3VLForConditionalGeneration:
    """A randomly initialised model for a processor's vocabulary."""
    tokenizer = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    head = config.hidden // config.heads
    third = head // 2 // 3
    grid = config.image_size // config.patch
    settings = Qwen3VLConfig(
        tie_word_embeddings=True,
        image_token_id=token(_IMAGE),
        video_token_id=token(_VIDEO),
        vision_start_token_id=token(_VISION_START),
        vision_end_token_id=token(_VISION_END),
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": config.hidden,
            "intermediate_size": 3 * config.hidden,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads // 2,
            "head_dim": head,
            "max_position_embeddings": 32768,
            "initializer_range": 0.02,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [head // 2 - 2 * third, third, third],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": token(_END),
            "eos_token_id": token(_TURN_END),
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.hidden,
            "intermediate_size": 2 * config.hidden,
            "num_heads": config.heads,
            "patch_size": config.patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": config.hidden,
            "num_position_embeddings": grid**2,
            "deepstack_visual_indexes": [1],
            "initializer_range": 0.02,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Qwen3VLForConditionalGeneration(settings)
    with torch.no_grad():
        model.model.visual.pos_embed.weight.copy_(0.3 * _waves(grid, config.hidden))
        if config.numbers:
            places = tokenizer.convert_tokens_to_ids(_numbers(config))
            words = model.model.language_model.embed_tokens.weight
            numbers = torch.arange(config.numbers)
            words[places] = _NUMBER_SCALE * place_waves(numbers, config.numbers, config.hidden)
    model.generation_config.eos_token_id = [token(_TURN_END), token(_END)]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.eval()
    return model


def _numbers(config: TinyConfig) -> list[str]:
    return [str(number) for number in range(config.numbers)]


def _waves(grid: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column, (grid * grid, width).

    With them a tiny model finds out in minutes where things are; with noise it takes far longer.
    """
    line = place_waves(torch.arange(grid), grid, width // 2)
    rows = line[:, None].expand(grid, grid, -1)
    columns = line[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=-1).reshape(grid * grid, width)


def place_waves(places: torch.Tensor, count: int, width: int) -> torch.Tensor:
    """Sines and cosines of places on a line, from half a cycle along it to one each two places.

    Args:
        places: ... float or int, from 0 to `count`.
        count: Places of the line.
        width: Of the code, even.

    Returns:
        ... x `width`.
    """
    cycles = 0.5 * (2 * count) ** torch.linspace(0, 1, width // 2) * torch.pi / count
    angles = places[..., None].float() * cycles
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def build_tiny(
    path: str | Path,
    texts: Sequence[str],
    config: TinyConfig | None = None,
    calls: Sequence[str] = CALL_WORDS,
) -> Path:
    """Build the model and its processor and save both as a checkpoint in Qwen3-VL's layout.

    Args:
        path: Folder; made if it is not there.
        texts: What the model will read and write, for the tokenizer.
        config: Size.
        calls: What is the same in every call; one token each.

    Returns:
        The folder.
    """
    logging.disable_progress_bar()  # it would cut through the program's own
    config = config or TinyConfig()
    path = Path(path)
    processor = build_processor(texts, config, calls)
    build_model(processor, config).save_pretrained(path)
    processor.save_pretrained(path)
    return path
