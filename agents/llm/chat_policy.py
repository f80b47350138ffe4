"""ChatPolicy: a vision-language model on this machine, playing all slots at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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
from agents.llm.checkpoint import load_model, load_processor
from agents.llm.history import Dialogue, read_history
from agents.llm.sampling import Forbid, SlotDraws, end_tokens, forbidden_tokens
from agents.llm.turn_cache import SlotCache
from medseg_gym.envs.chat_view import Message
from medseg_gym.errors import PolicyError


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is loaded and asked, and how its answer is drawn.

    Args:
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        top_p: Draw among the likeliest tokens that together have this probability.
        top_k: Draw among so many likeliest tokens; 0 is all.
        max_new_tokens: Of an answer.
        history: "all" pictures, the newest k, or "none" (see `history.read_history`).
        batch: Slots that the model answers at once; None is all of them.
        keep_cache: Keep keys and values between turns where that is exact (see `turn_cache`).
        dtype: Of the weights: "auto" as they are stored, or a torch type's name.
        device_map: As transformers takes it, such as "auto" or "cuda:1"; None is an accelerator
            where there is one, else the CPU.
        merge: Fold adapters into the weights, which answers faster.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 128
    history: str | int = "all"
    batch: int | None = None
    keep_cache: bool = True
    dtype: str = "auto"
    device_map: str | None = None
    merge: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", read_history(self.history))
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
    dialogue: Dialogue = field(default_factory=Dialogue)
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
        options: See `ModelOptions`.
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
        options: ModelOptions | None = None,
        name: str = "llm",
        checkpoint: str = "",
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.system, self.over = list(system), over
        self.options = options or ModelOptions()
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

    @classmethod
    def load(
        cls,
        path: str | Path,
        system: Sequence[Message] = (),
        over: str | None = None,
        options: ModelOptions | None = None,
        name: str | None = None,
    ) -> ChatPolicy:
        """Load a checkpoint of transformers or adapters of peft; other arguments as above.

        Args:
            path: Folder.
            system: Messages that every conversation begins with.
            over: What the environment shows in a slot that has ended.
            options: See `ModelOptions`.
            name: Shown in tables.

        Raises:
            PolicyError: No such checkpoint, or not one of a chat model that takes pictures.
        """
        options = options or ModelOptions()
        device = options.device_map
        if device is None and torch.accelerator.is_available():
            device = str(torch.accelerator.current_accelerator())
        model = load_model(path, options.dtype, device, options.merge)
        return cls(
            model,
            load_processor(path),
            system,
            over,
            options,
            name or f"llm:{path}",
            weights_digest(path),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the answers beside the name; JSON."""
        aside = ("batch", "keep_cache", "device_map")
        options = {k: v for k, v in vars(self.options).items() if k not in aside}
        return {"checkpoint": self.checkpoint, "dtype": str(self.model.dtype), **options}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new conversations."""
        for slot, generator in zip(slots, generators, strict=True):
            self._slots[slot] = _Slot(generator)

    def act(self, observations: Mapping[str, Any]) -> list[str]:
        """Answers of all slots; "" for those that have ended or were never reset.

        Args:
            observations: `text`, n str, and `image`, n x P x P x 3 uint8: the newest user turns.
        """
        texts, images = observations["text"], observations["image"]
        answers = [""] * len(texts)
        asked = [s for s, text in enumerate(texts) if s in self._slots and text != self.over]
        for slot in asked:
            dialogue = self._slots[slot].dialogue
            dialogue.texts.append(texts[slot])
            dialogue.pictures.append(Image.fromarray(images[slot]))
        size = self.options.batch or len(asked)
        for start in range(0, len(asked), max(1, size)):
            group = asked[start : start + size]
            for slot, answer in zip(
                group, self._answer([self._slots[s] for s in group]), strict=True
            ):
                self._slots[slot].dialogue.answers.append(answer)
                answers[slot] = answer
        return answers

    def conversation(self, slot: int) -> tuple[list[Message], list[Image.Image]]:
        """What the model was shown last in a slot: messages, and the pictures in them."""
        return self._slots[slot].dialogue.shown(self.system, self.options.history)

    # what it says -------------------------------------------------------------------------------
    @torch.inference_mode()
    def _answer(self, slots: Sequence[_Slot]) -> list[str]:
        shown = [slot.dialogue.shown(self.system, self.options.history) for slot in slots]
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


def weights_digest(path: str | Path) -> str:
    """What tells one checkpoint from another: a hash of its weight files.

    Files of more than 256 MB count by name, size and the time they were written.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(Path(path).glob("*.safetensors")) + sorted(Path(path).glob("*.bin")):
        facts = file.stat()
        digest.update(file.name.encode())
        if facts.st_size <= 256 * 2**20:
            digest.update(file.read_bytes())
        else:
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()
