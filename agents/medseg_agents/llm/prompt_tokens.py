"""Prompts as tokens: what a model said as it was drawn, and words that can spell no special token.

A chat template gives text, and a tokenizer reads special tokens wherever the text spells them: a
completion, a target or a user's words that hold `<|im_end|>` or an image's place holder would end a
turn or ask for an image. And a completion that is tokenised again may not be the tokens that were
drawn. So both are left out of the text: a marker, a special token of a copy of the tokenizer,
stands in their place, and tokens are put there afterwards. Every other text is tokenised as the
processor does it, and the tokens of an ordinary conversation are the same.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medseg_gym.envs.views.messages import Message
from medseg_gym.errors import PolicyError

MARKER = "\ue0f0medseg\ue0f1"
"""Of private-use characters; a text that spells it is taken apart like any special token."""


@dataclass(frozen=True)
class MarkedPrompt:
    """A prompt with markers.

    Args:
        text: Of the chat template.
        inserts: Tokens to put in the place of each marker, in order.
    """

    text: str
    inserts: tuple[tuple[int, ...], ...]

    def behind(self, prompt: MarkedPrompt) -> MarkedPrompt:
        """Return what this prompt adds to another one, whose text it begins with."""
        return MarkedPrompt(self.text[len(prompt.text) :], self.inserts[len(prompt.inserts) :])


class PromptTokens:
    """Makes the tokens of prompts for one processor.

    Args:
        processor: Of transformers, with a chat template.

    Attributes:
        marked: A copy of the processor whose tokenizer also knows the marker.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        tokenizer = copy.deepcopy(processor.tokenizer)
        tokenizer.add_tokens([MARKER], special_tokens=True)
        self.marked = copy.copy(processor)
        self.marked.tokenizer = tokenizer
        self._marker = int(tokenizer.convert_tokens_to_ids(MARKER))
        self._special = frozenset(_special_ids(processor.tokenizer))
        self._spelled = spelled_tokens(processor)
        self._plain: dict[str, tuple[int, ...]] = {}

    def mark(
        self,
        messages: Sequence[Message],
        completions: Sequence[Sequence[int]] = (),
        add_generation_prompt: bool = True,
    ) -> MarkedPrompt:
        """Render a conversation.

        Args:
            messages: Of the conversation.
            add_generation_prompt: The model is to answer now.
            completions: Tokens of the newest assistant messages as they were drawn, without the one
                that ends them. A message that has none, or that the template does not show word for
                word (thoughts that it drops), is tokenised like other words.
        """
        spoken = [i for i, one in enumerate(messages) if one["role"] == "assistant"]
        drawn = dict(zip(reversed(spoken), reversed(completions), strict=False))
        marked, texts, inserts = self._taken_apart(messages, drawn)
        text = self._render(marked, add_generation_prompt)
        if drawn and not self._stands_for(text, texts, messages, add_generation_prompt):
            marked, _, inserts = self._taken_apart(messages, {})
            text = self._render(marked, add_generation_prompt)
        return MarkedPrompt(text, tuple(inserts))

    def ids(
        self, messages: Sequence[Message], completions: Sequence[Sequence[int]] = ()
    ) -> list[int]:
        """Return the tokens of a conversation that the model is to answer.

        Args:
            messages: Of the conversation.
            completions: See `mark`.

        Returns:
            Tokens with one place holder an image.
        """
        prompt = self.mark(messages, completions)
        read = self.marked.tokenizer(prompt.text, add_special_tokens=False)
        return self.fill(read["input_ids"], prompt)

    def fill(self, ids: Sequence[int], prompt: MarkedPrompt) -> list[int]:
        """Put tokens in the place of markers.

        Args:
            ids: Tokens of a marked text.
            prompt: It.

        Raises:
            PolicyError: The chat template has dropped or doubled a text.
        """
        filled: list[int] = []
        inserts = iter(prompt.inserts)
        for token in ids:
            if token != self._marker:
                filled.append(token)
                continue
            insert = next(inserts, None)
            if insert is None:
                raise PolicyError("the chat template shows a text more than once: cannot be played")
            filled += insert
        if next(inserts, None) is not None:
            raise PolicyError("the chat template leaves out a text that spells a special token")
        return filled

    def read(self, prompts: Sequence[MarkedPrompt], images: Sequence[Sequence[Any]]) -> Any:
        """Return what the processor gives for prompts, padded at the left.

        Args:
            prompts: Of `mark`.
            images: Of each prompt, in order.
        """
        given = self.marked(
            text=[prompt.text for prompt in prompts],
            images=[list(shown) for shown in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the template has them
        )
        if not any(prompt.inserts for prompt in prompts):
            return given
        ids, mask = given["input_ids"], given["attention_mask"].bool()
        columns = [name for name, value in given.items() if getattr(value, "shape", 0) == ids.shape]
        rows: dict[str, list[torch.Tensor]] = {name: [] for name in columns}
        for number, prompt in enumerate(prompts):
            own = ids[number][mask[number]].tolist()
            widths = torch.tensor(self.widths(own, prompt), device=ids.device)
            for name in columns:
                values = given[name][number][mask[number]]
                rows[name].append(values.repeat_interleave(widths))
            filled = self.fill(own, prompt)
            rows["input_ids"][-1] = torch.tensor(filled, dtype=ids.dtype, device=ids.device)
        padding = {name: 0 for name in columns}
        padding["input_ids"] = self.processor.tokenizer.pad_token_id
        for name in columns:
            given[name] = pad_left(rows[name], padding[name])
        return given

    def widths(self, ids: Sequence[int], prompt: MarkedPrompt) -> list[int]:
        """Return how many tokens stand in the place of each of `ids` after `fill`."""
        inserts = iter(prompt.inserts)
        return [len(next(inserts)) if token == self._marker else 1 for token in ids]

    def _taken_apart(
        self, messages: Sequence[Message], drawn: Mapping[int, Sequence[int]]
    ) -> tuple[list[Message], list[str], list[tuple[int, ...]]]:
        """Return messages with markers, and the text and the tokens of each marker."""
        texts: list[str] = []
        inserts: list[tuple[int, ...]] = []

        def without(text: str) -> str:
            for spelling in self._spelled.findall(text):
                texts.append(spelling)
                inserts.append(self._letters(spelling))
            return self._spelled.sub(MARKER, text)

        marked: list[Message] = []
        for number, message in enumerate(messages):
            content: Any = message["content"]
            if number in drawn:
                texts.append("".join(part.get("text", "") for part in _parts(content)))
                inserts.append(tuple(drawn[number]))
                content = [{"type": "text", "text": MARKER}]
            elif isinstance(content, str):
                content = without(content)
            else:
                content = [
                    {**part, "text": without(part["text"])} if "text" in part else part
                    for part in content
                ]
            marked.append({**message, "content": content})
        return marked, texts, inserts

    def _stands_for(
        self,
        text: str,
        texts: Sequence[str],
        messages: Sequence[Message],
        add_generation_prompt: bool,
    ) -> bool:
        """Return whether a text with markers says what the template says without them."""
        pieces = text.split(MARKER)
        if len(pieces) != len(texts) + 1:
            return False
        whole = "".join(a + b for a, b in zip(pieces, [*texts, ""], strict=True))
        return whole == self._render(messages, add_generation_prompt)

    def _letters(self, spelling: str) -> tuple[int, ...]:
        """Return the tokens of the letters of a special token's name."""
        if spelling not in self._plain:
            tokenizer = self.processor.tokenizer
            ids = tokenizer(spelling, split_special_tokens=True, add_special_tokens=False).input_ids
            if self._special & set(ids):
                raise PolicyError(
                    f"{type(tokenizer).__name__} cannot read {spelling!r} as letters; a text that "
                    "holds it cannot be shown to this model"
                )
            self._plain[spelling] = tuple(ids)
        return self._plain[spelling]

    def _render(self, messages: Sequence[Any], add_generation_prompt: bool) -> str:
        text: str = self.processor.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text


def spelled_tokens(processor: Any) -> re.Pattern[str]:
    """Return a pattern of all texts that a processor's tokenizer reads as special tokens."""
    longest_first = sorted({*_spellings(processor), MARKER}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


def pad_left(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Return rows of different lengths as one tensor, B x L, padded at the left."""
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=value, padding_side="left"
    )


def _parts(content: Any) -> Sequence[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _special_ids(tokenizer: Any) -> set[int]:
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}


def _spellings(processor: Any) -> set[str]:
    tokenizer = processor.tokenizer
    names = {str(tokenizer.added_tokens_decoder.get(i, "")) for i in _special_ids(tokenizer)}
    names |= {str(token) for token in tokenizer.all_special_tokens}
    for name in ("image_token", "video_token"):
        names.add(str(getattr(processor, name, None) or ""))
    return names - {""}
