"""Teach a tiny language model to look where its vision tower found a target.

Words for numbers say little about where to look: fine-tuning on answers alone finds out slowly that
an image token and the name of a target belong together. Here one head of one layer is told: where
the model is about to write a number of a box, its attention is drawn to the image tokens that
speak of the target. Everything else is ordinary fine-tuning on answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from benchmarks.learning.vision.scenes import Scenes
from benchmarks.learning.vision.steps import drawn_order, train_steps
from benchmarks.learning.vision.tower import owned_tokens
from medseg_gym.backbones.batching.fused import multiplies_bfloat16
from medseg_gym.storage.atomic_write import atomic_folder

_BATCH, _WARMUP, _DECAY = 8, 50, 0.4
_LOOKING = 0.5  # weight of the loss of attention


class Look(NamedTuple):
    """A place from which attention should go to some image tokens, for a number comes next.

    Attributes:
        place: Of the token that the number follows.
        shares: N float32, of the image tokens; sums to 1.
    """

    place: int
    shares: torch.Tensor


class Chat(NamedTuple):
    """A tokenised chat of questions about one image.

    Attributes:
        given: What the processor made of it, for the model.
        answers: L int64, the tokens of the answers, -100 elsewhere.
        looks: Those of its numbers.
    """

    given: dict[str, torch.Tensor]
    answers: torch.Tensor
    looks: list[Look]


class Reader:
    """Turns chats of first turns and what is known of their images into what is learned.

    Args:
        processor: Of the model.
        targets: Target texts, as `Scenes.targets` counts them.
        chats: Messages of each image, one question a target, in the order of the scenes.
        scenes: Their images.
    """

    def __init__(
        self, processor: Any, targets: Sequence[str], chats: Sequence[Any], scenes: Scenes
    ) -> None:
        self.processor, self.targets = processor, targets
        self.chats, self.scenes = chats, scenes
        tokenizer = processor.tokenizer
        self.pad = tokenizer.pad_token_id
        self._header = tokenizer("<|im_start|>assistant\n")["input_ids"]
        self._end = tokenizer.eos_token_id
        size = scenes.images.shape[1]
        self._numbers = set(tokenizer.convert_tokens_to_ids([str(n) for n in range(size)]))

    def chat(self, number: int) -> Chat:
        """Tokenise the chat of an image."""
        messages = [_plain(message) for message in self.chats[number]]
        text = self.processor.apply_chat_template(messages, tokenize=False)
        given = self.processor(
            text=[text], images=[self.scenes.images[number]], return_tensors="pt"
        )
        ids = given["input_ids"][0].tolist()
        image_tokens = ids.count(self.processor.image_token_id)
        owned = owned_tokens(
            torch.from_numpy(self.scenes.covers[number])[None].float() / 255, image_tokens
        )[0].float()
        known = self.scenes.targets[number].tolist()
        questions = [m["content"][-1]["text"] for m in messages if m["role"] == "user"]
        answers = torch.full((len(ids),), -100)
        looks = []
        for question, answer in zip(questions, self._answers(ids), strict=True):
            answers[answer] = given["input_ids"][0][answer]
            own = owned[known.index(self._asked(question))]
            if own.any():
                places = [p - 1 for p in answer if ids[p] in self._numbers]
                looks += [Look(place, own / own.sum()) for place in places]
        return Chat(dict(given), answers, looks)

    def _answers(self, ids: list[int]) -> list[list[int]]:
        """Places of the tokens of every answer, its end included."""
        wide, answers = len(self._header), []
        for start in range(wide, len(ids)):
            if ids[start - wide : start] == self._header:
                answers.append(list(range(start, ids.index(self._end, start) + 1)))
        return answers

    def _asked(self, question: str) -> int:
        return next(i for i, text in enumerate(self.targets) if question.startswith(f"{text},"))


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Without the empty fields that a parquet file gives every part of a message."""
    parts = [{k: v for k, v in part.items() if v is not None} for part in message["content"]]
    return {**message, "content": parts}


def reading_loss(model: Any, chats: Sequence[Chat], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss on the answers' tokens, and the divergence of attention from where it should go.

    Args:
        model: With eager attention, which alone tells its weights.
        chats: Of a batch.
        pad: Token that fills up.
    """

    def filled(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value)

    def of_all(name: str, value: int) -> torch.Tensor:
        return filled([chat.given[name][0] for chat in chats], value)

    given = {
        name: torch.cat([chat.given[name] for chat in chats])
        for name in ("pixel_values", "image_grid_thw")
    }
    ids = of_all("input_ids", pad)
    with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
        out = model(
            input_ids=ids,
            attention_mask=of_all("attention_mask", 0),
            mm_token_type_ids=of_all("mm_token_type_ids", 0),
            output_attentions=True,
            **given,
        )
    answers = filled([chat.answers for chat in chats], -100)
    logits = out.logits[:, :-1].float()
    told = functional.cross_entropy(logits.flatten(0, 1), answers[:, 1:].flatten())
    looks = [(row, look) for row, chat in enumerate(chats) for look in chat.looks]
    if not looks:
        return told, told.new_zeros(())
    rows = torch.tensor([row for row, _ in looks])
    places = torch.tensor([look.place for _, look in looks])
    shares = torch.stack([look.shares for _, look in looks])
    layer = model.config.text_config.num_hidden_layers // 2
    attention = out.attentions[layer][rows, 0, places].float()  # of its first head
    shown = (ids == model.config.image_token_id)[rows]
    attention = attention[shown].reshape(shares.shape)
    distance = shares * ((shares + 1e-9).log() - (attention + 1e-5).log())
    return told, distance.sum(-1).mean()


def train_reading(start: Path, out: Path, reader: Reader, steps: int, seed: int) -> Path:
    """Train, or go on; `progress.jsonl` and the checkpoint are beside the model.

    Args:
        start: Folder of the model whose tower sees.
        out: Folder of the run.
        reader: With the processor of that model.
        steps: Of the optimiser, 8 chats each.
        seed: Of the order.

    Returns:
        Folder of the trained model.
    """
    from transformers import Qwen3VLForConditionalGeneration

    done = out / "model"
    if done.is_dir():
        return done
    model = Qwen3VLForConditionalGeneration.from_pretrained(start, attn_implementation="eager")
    model.train()
    model.model.visual.requires_grad_(False)  # it sees already; noisy steps would blur that

    def learn(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = drawn_order(len(reader.chats), _BATCH, step, seed)
        chats = [reader.chat(number) for number in chosen.tolist()]
        told, looked = reading_loss(model, chats, reader.pad)
        return told + _LOOKING * looked, {"loss": told.item(), "attention": looked.item()}

    train_steps(model, out, steps, _WARMUP, _DECAY, learn)
    with atomic_folder(done) as folder:
        model.save_pretrained(folder)
        reader.processor.save_pretrained(folder)
    return done
