"""ChatPolicy: a vision-language model on this machine, playing all slots at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from agents.llm import turn_cache
from agents.llm.sampling import Forbid, SlotDraws, end_tokens, forbidden_tokens
from agents.llm.turn_cache import SlotCache
from medseg_gym.errors import PolicyError

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How a model is asked and how its answer is drawn.

    Args:
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        top_p: Draw among the likeliest tokens that together have this probability.
        top_k: Draw among so many likeliest tokens; 0 is all.
        max_new_tokens: Of an answer.
        history: "all": the conversation with every picture. A number k: all words, but only the
            newest k pictures. "none": the task, the newest picture and its turn, nothing before.
        batch: Slots that the model answers at once; None is all of them.
        keep_cache: Keep keys and values between turns where that is exact (see `turn_cache`).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 128
    history: str | int = "all"
    batch: int | None = None
    keep_cache: bool = True

    def __post_init__(self) -> None:
        history = self.history
        if isinstance(history, str) and re.fullmatch(r"\d+", history):
            object.__setattr__(self, "history", int(history))
        if self.history not in ("all", "none") and not (
            isinstance(self.history, int) and self.history >= 1
        ):
            raise PolicyError(f"history must be all, none or a number from 1, got {history!r}")
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise PolicyError(
                "sampling needs temperature >= 0, 0 < top_p <= 1 and top_k >= 0, got "
                f"{self.temperature}, {self.top_p}, {self.top_k}"
            )
        if self.max_new_tokens < 1 or (self.batch is not None and self.batch < 1):
            raise PolicyError(
                f"need max_new_tokens, batch >= 1, got {self.max_new_tokens}, {self.batch}"
            )


@dataclass
class _Slot:
    """A conversation."""

    generator: np.random.Generator
    turns: list[tuple[str, Image.Image]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    cache: SlotCache | None = None


class ChatPolicy:
    """Plays `MedSegChat-v0` with a chat model of transformers that takes pictures.

    All slots that wait for an answer are one batch, padded at the left. Without sampling the
    answers are those that each slot would get alone, and with it too: every slot draws from its own
    generator, a fixed number of times a turn. What the batch changes is the last bits of the
    logits, as everywhere in floating point.

    Args:
        model: A model that `AutoModelForImageTextToText` loads, adapters included.
        processor: Its processor.
        system: Messages that every conversation begins with (`envs.system_messages`).
        over: What the environment shows in a slot that has ended (`texts.over`); such slots are not
            asked.
        options: See `ChatOptions`.
        name: Shown in tables.
        checkpoint: What the records of a run say of the model.
    """

    sees_truth = False

    def __init__(
        self,
        model: Any,
        processor: Any,
        system: Sequence[Message] = (),
        over: str | None = None,
        options: ChatOptions | None = None,
        name: str = "llm",
        checkpoint: str = "",
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.system, self.over = list(system), over
        self.options = options or ChatOptions()
        self.name, self.checkpoint = name, checkpoint
        self.tokens_made = 0
        self._slots: dict[int, _Slot] = {}
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
    def settings(self) -> dict[str, Any]:
        """What decides the answers beside the name; JSON."""
        options = {k: v for k, v in vars(self.options).items() if k not in ("batch", "keep_cache")}
        return {"checkpoint": self.checkpoint, "dtype": str(self.model.dtype), **options}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new conversations."""
        for slot, generator in zip(slots, generators, strict=True):
            self._slots[slot] = _Slot(generator)

    def act(self, observations: dict[str, Any]) -> list[str]:
        """Answers of all slots; "" for those that have ended or were never reset.

        Args:
            observations: `text`, n str, and `image`, n x P x P x 3 uint8: the newest user turns.
        """
        texts, images = observations["text"], observations["image"]
        answers = [""] * len(texts)
        asked = [s for s, text in enumerate(texts) if s in self._slots and text != self.over]
        for slot in asked:
            self._slots[slot].turns.append((texts[slot], Image.fromarray(images[slot])))
        size = self.options.batch or len(asked)
        for start in range(0, len(asked), max(1, size)):
            group = asked[start : start + size]
            for slot, answer in zip(
                group, self._answer([self._slots[s] for s in group]), strict=True
            ):
                self._slots[slot].answers.append(answer)
                answers[slot] = answer
        return answers

    # what the model is shown --------------------------------------------------------------------
    def conversation(self, slot: int) -> tuple[list[Message], list[Image.Image]]:
        """What the model was shown last in a slot: messages, and the pictures in them."""
        return self._shown(self._slots[slot])

    def _shown(self, slot: _Slot) -> tuple[list[Message], list[Image.Image]]:
        history, turns = self.options.history, slot.turns
        if history == "none":
            words = [turns[0][0]] if len(turns) == 1 else [turns[0][0], turns[-1][0]]
            return [*self.system, _user("\n".join(words))], [turns[-1][1]]
        first = 0 if history == "all" else max(0, len(turns) - int(history))
        messages = list(self.system)
        for number, (text, _) in enumerate(turns):
            messages.append(_user(text, picture=number >= first))
            if number < len(turns) - 1:
                answer = [{"type": "text", "text": slot.answers[number]}]
                messages.append({"role": "assistant", "content": answer})
        return messages, [picture for _, picture in turns[first:]]

    # what it says -------------------------------------------------------------------------------
    @torch.inference_mode()
    def _answer(self, slots: Sequence[_Slot]) -> list[str]:
        shown = [self._shown(slot) for slot in slots]
        tokenizer = self.processor.tokenizer
        texts = self.processor.apply_chat_template(
            [messages for messages, _ in shown], tokenize=False, add_generation_prompt=True
        )
        inputs = self.processor(
            text=texts,
            images=[pictures for _, pictures in shown],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the template has them
        ).to(self.model.device)
        given = dict(inputs)
        ids, mask = given["input_ids"], given["attention_mask"]
        if self._keeps:
            given |= self._with_kept(slots, given, [len(pictures) for _, pictures in shown])
        made = self.model.generate(
            **given,
            generation_config=self._config,
            logits_processor=self._processors(slots, ids.shape[1]),
        )
        if self._keeps:
            kept = given[turn_cache.cache_argument(self.model)]
            for slot, cache in zip(slots, turn_cache.part(kept, made, mask), strict=True):
                slot.cache = cache
        new = made[:, ids.shape[1] :]
        ends = torch.tensor(self._config.eos_token_id, device=new.device)
        self.tokens_made += int((~torch.isin(new, ends)).sum())
        # Thoughts and tool calls are ordinary tokens in some vocabularies and special in others, so
        # only what ends an answer is taken off.
        answers = []
        for row in new.tolist():
            stop = next((i for i, t in enumerate(row) if t in self._config.eos_token_id), len(row))
            answers.append(tokenizer.decode(row[:stop], skip_special_tokens=False))
        return answers

    def _processors(self, slots: Sequence[_Slot], start: int) -> LogitsProcessorList:
        options = self.options
        chosen = LogitsProcessorList([self._forbid])
        if options.temperature > 0:
            if options.temperature != 1:
                chosen.append(TemperatureLogitsWarper(options.temperature))
            if options.top_k:
                chosen.append(TopKLogitsWarper(options.top_k))
            if options.top_p < 1:
                chosen.append(TopPLogitsWarper(options.top_p))
            draws = [slot.generator.random(options.max_new_tokens) for slot in slots]
            chosen.append(SlotDraws(np.stack(draws), start))
        return chosen

    def _with_kept(
        self, slots: Sequence[_Slot], given: dict[str, Any], pictures: Sequence[int]
    ) -> dict[str, Any]:
        """What changes in the model's inputs when earlier turns are not computed again."""
        from transformers import DynamicCache

        name = turn_cache.cache_argument(self.model)
        caches = [slot.cache for slot in slots]
        ids, mask = given["input_ids"], given["attention_mask"]
        known = turn_cache.known_part(caches, ids, mask, self.model.config.image_token_id)
        changed: dict[str, Any] = {"position_ids": turn_cache.positions(self.model, given)}
        if not known:
            return changed | {name: DynamicCache()}
        # Pictures in the known part are not encoded again.
        grids = given["image_grid_thw"]
        patches = grids.prod(-1).tolist()
        merged = getattr(self.processor.image_processor, "merge_size", 1) ** 2
        left = (ids[:, known:] == self.model.config.image_token_id).sum(1).tolist()
        wanted: list[int] = []
        end = 0
        for count, tokens in zip(pictures, left, strict=True):
            end += count
            first = end
            while tokens > 0:
                first -= 1
                tokens -= patches[first] // merged
            wanted += range(first, end)
        parts = torch.split(given["pixel_values"], patches)
        present = [cache for cache in caches if cache is not None]
        return changed | {
            name: turn_cache.join(present, mask, known),
            "pixel_values": torch.cat([parts[i] for i in wanted]),
            "image_grid_thw": grids[wanted],
        }


def _user(text: str, picture: bool = True) -> Message:
    image = [{"type": "image"}] if picture else []
    return {"role": "user", "content": [*image, {"type": "text", "text": text}]}


def weights_digest(path: str | Path) -> str:
    """What tells one checkpoint from another: a hash of its weight files.

    Files of more than 256 MB count by name, size and the time they were written.
    """
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(Path(path).glob("*.safetensors")) + sorted(Path(path).glob("*.bin")):
        facts = file.stat()
        digest.update(file.name.encode())
        if facts.st_size <= 256 * 2**20:
            digest.update(file.read_bytes())
        else:
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()
