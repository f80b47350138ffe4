"""Generation with transformers: one batch, sampling per conversation, kept keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medseg_agents.llm import turn_cache
from medseg_agents.llm.engine import Completion, Conversation
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.processed_images import (
    ProcessedImage,
    encode_images,
    process_new,
    tokenize,
)
from medseg_agents.llm.prompt_tokens import MarkedPrompt, PromptTokens
from medseg_agents.llm.sampling import Forbid, SlotDraws, end_tokens, forbidden_tokens
from medseg_gym.envs.views.messages import Message


class TransformersEngine:
    """Completes many conversations at once with a chat model of transformers that takes images.

    The batch is padded at the left. Without sampling the completions are those that each
    conversation would get alone, and with it too: each draws from its own generator, a fixed number
    of times a turn. What the batch changes is the last bits of the logits, as everywhere in
    floating point.

    Args:
        model: A model that `AutoModelForImageTextToText` loads, adapters included.
        processor: Its processor.
        system: Messages that every conversation begins with (`envs.system_messages`).
        options: See `ModelOptions`; `batch` is the caller's to heed.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        system: Sequence[Message] = (),
        options: ModelOptions | None = None,
    ) -> None:
        self.model, self.processor, self.system = model, processor, list(system)
        self.options = options or ModelOptions()
        self._prompt_tokens = PromptTokens(processor)
        self._forbid = Forbid(forbidden_tokens(model, processor))
        self._config = GenerationConfig(
            max_new_tokens=self.options.max_new_tokens,
            do_sample=False,  # drawing is done by `SlotDraws`
            num_beams=1,
            eos_token_id=end_tokens(model, processor),
            pad_token_id=processor.tokenizer.pad_token_id,
        )
        self._keeps = (
            self.options.keep_cache and self.options.history == "all" and turn_cache.can_keep(model)
        )

    @property
    def dtype(self) -> str:
        """Type of the weights."""
        return str(self.model.dtype)

    @torch.no_grad()  # not inference_mode: a trainer's weights may be the same tensors
    def generate(self, conversations: Sequence[Conversation]) -> list[Completion]:
        """Complete the newest user turn of each, and add the completion to its dialogue."""
        history = self.options.history
        shown = [one.dialogue.shown(self.system, history) for one in conversations]
        tokenizer = self.processor.tokenizer
        prompts = [
            self._prompt_tokens.mark(messages, one.dialogue.tokens)
            for one, (messages, _) in zip(conversations, shown, strict=True)
        ]
        if self._keeps:
            given = self._with_kept(conversations, prompts)
        else:
            read = self._prompt_tokens.read(prompts, [images for _, images in shown])
            given = dict(read.to(self.model.device))
        ids, mask = given["input_ids"], given["attention_mask"]
        processors, draws = self._processors(conversations, ids.shape[1])
        made = self.model.generate(
            **given, generation_config=self._config, logits_processor=processors
        )
        if self._keeps:
            kept = given[turn_cache.cache_argument(self.model)]
            for one, cache in zip(conversations, turn_cache.split(kept, made, mask), strict=True):
                one.cache = cache
        log_probs = draws.log_probs() if draws else None
        completions = []
        rows = zip(conversations, ids.tolist(), mask.sum(1).tolist(), made.tolist(), strict=True)
        for number, (one, row, used, whole) in enumerate(rows):
            new = whole[len(row) :]
            stop = next((i for i, t in enumerate(new) if t in self._config.eos_token_id), len(new))
            chosen = new[: stop + 1]
            # Thoughts and tool calls are ordinary tokens in some vocabularies and special in
            # others, so only what ends a completion is taken off.
            text = tokenizer.decode(new[:stop], skip_special_tokens=False)
            one.dialogue.completions.append(text)
            one.dialogue.tokens.append(new[:stop])
            completions.append(
                Completion(
                    text,
                    np.asarray(row[len(row) - used :], np.int32),
                    np.asarray(chosen, np.int32),
                    np.zeros(0, np.float32)
                    if log_probs is None
                    else log_probs[number, : len(chosen)],
                    len(shown[number][1]),
                    stop == len(new),
                )
            )
        return completions

    def _processors(
        self, conversations: Sequence[Conversation], start: int
    ) -> tuple[LogitsProcessorList, SlotDraws | None]:
        options = self.options
        chosen = LogitsProcessorList([self._forbid])
        if options.temperature == 0:
            return chosen, None
        if options.temperature != 1:
            chosen.append(TemperatureLogitsWarper(options.temperature))
        if options.top_k:
            chosen.append(TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            chosen.append(TopPLogitsWarper(options.top_p))
        numbers = [one.generator.random(options.max_new_tokens) for one in conversations]
        draws = SlotDraws(np.stack(numbers), start)
        chosen.append(draws)
        return chosen, draws

    def _with_kept(
        self, conversations: Sequence[Conversation], prompts: Sequence[MarkedPrompt]
    ) -> dict[str, Any]:
        """Return the model's inputs where neither earlier turns nor images are computed again."""
        from transformers import DynamicCache

        process_new(self.processor, conversations)
        read = tokenize(self._prompt_tokens, prompts, [one.processed for one in conversations])
        given: dict[str, Any] = {k: value.to(self.model.device) for k, value in read.items()}
        given["position_ids"] = turn_cache.positions(self.model, given)
        cache_name = turn_cache.cache_argument(self.model)
        caches = [one.cache for one in conversations]
        ids, mask = given["input_ids"], given["attention_mask"]
        image = self.model.config.image_token_id
        known = turn_cache.known_part(caches, ids, mask, image)
        given[cache_name] = DynamicCache()
        if known:
            given[cache_name] = turn_cache.join([c for c in caches if c is not None], mask, known)
        # Only images in the part that is not known, and of several that are alike one.
        left = (ids[:, known:] == image).sum(1).tolist()
        wanted: list[ProcessedImage] = []
        for one, tokens in zip(conversations, left, strict=True):
            newest = len(one.processed)
            while tokens > 0:
                newest -= 1
                tokens -= one.processed[newest].tokens
            wanted += one.processed[newest:]
        if wanted:
            given |= encode_images(self.model, wanted)
        return given
