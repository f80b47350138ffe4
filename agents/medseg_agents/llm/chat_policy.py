"""ChatPolicy: a vision-language model on this machine, playing all slots at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medseg_agents.llm.checkpoint import load_model, load_processor
from medseg_agents.llm.engine import Conversation, GenerationEngine
from medseg_agents.llm.engine_options import EngineOptions, ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_gym.envs.views.cut_answer import CutAnswer
from medseg_gym.envs.views.messages import Message


class ChatPolicy:
    """Plays a chat environment with a chat model that takes images.

    All slots that wait for a completion are one batch.

    Args:
        engine: The model, how it is asked, and what every conversation begins with
            (`envs.system_messages`).
        over: What the environment shows in a slot that has ended (`texts.over`); such slots are not
            asked.
        name: Shown in tables.
        checkpoint: Digest of the model's weights, for the records of a run.
        image_keys: Entries of an observation that are the images of a turn, in order
            (`envs.view.image_keys`).
    """

    sees_truth = False

    def __init__(
        self,
        engine: GenerationEngine,
        over: str | None = None,
        name: str = "llm",
        checkpoint: str = "",
        image_keys: Sequence[str] = ("image",),
    ) -> None:
        self.engine, self.options = engine, engine.options
        self.over, self.name, self.checkpoint = over, name, checkpoint
        self.image_keys = tuple(image_keys)
        self._slots: dict[int, Conversation] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        system: Sequence[Message] = (),
        over: str | None = None,
        options: ModelOptions | None = None,
        name: str | None = None,
        image_keys: Sequence[str] = ("image",),
    ) -> ChatPolicy:
        """Load a checkpoint of transformers or adapters of peft.

        Args:
            path: Folder.
            system: Messages that every conversation begins with.
            over: What the environment shows in a slot that has ended.
            options: See `ModelOptions`.
            name: Shown in tables.
            image_keys: See the class.

        Raises:
            PolicyError: No such checkpoint, or not one of a chat model that takes images.
        """
        options = options or ModelOptions()
        if options.engine == "vllm":
            from medseg_agents.llm.vllm.start import load_vllm_engine

            other = load_vllm_engine(path, system, options)
            return cls(other, over, name or f"llm:{path}", weights_digest(path), image_keys)
        device = options.device_map
        if device is None and torch.accelerator.is_available():
            device = str(torch.accelerator.current_accelerator())
        model = load_model(path, options.dtype, device, options.merge, options.base)
        processor = load_processor(path, options.base)
        engine = TransformersEngine(model.eval(), processor, system, options)
        return cls(engine, over, name or f"llm:{path}", weights_digest(path), image_keys)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide the completions beside the name; JSON."""
        aside = ["batch", "keep_cache", "device_map", "vllm_python", "vllm_timeout"]
        if self.options.engine == "transformers":
            aside += [field.name for field in fields(EngineOptions)]
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self.options).items()
            if name not in aside
        }
        return {"checkpoint": self.checkpoint, "dtype": self.engine.dtype, **options}

    def close(self) -> None:
        """End the engine's process, where it has one."""
        close = getattr(self.engine, "close", None)
        if close is not None:
            close()

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new conversations."""
        for slot, generator in zip(slots, generators, strict=True):
            self._slots[slot] = Conversation(generator)

    def act(self, observations: Mapping[str, Any]) -> list[str]:
        """Generate the completions of all slots; "" for those that have ended or were never reset.

        One that ran into `max_new_tokens` is a `CutAnswer`.

        Args:
            observations: The newest user turns: `text`, n str, and under each of `image_keys`
                n images, n x H x W x 3 uint8.
        """
        texts = observations["text"]
        actions = [""] * len(texts)
        asked = [s for s, text in enumerate(texts) if s in self._slots and text != self.over]
        for slot in asked:
            self._slots[slot].show(texts[slot], *(observations[k][slot] for k in self.image_keys))
        cut = (
            f"the answer was cut off at the limit of {self.options.max_new_tokens} tokens before "
            "its call was complete (option max_new_tokens raises the limit)"
        )
        size = self.options.batch or len(asked)
        for start in range(0, len(asked), max(1, size)):
            group = asked[start : start + size]
            completions = self.engine.generate([self._slots[s] for s in group])
            for slot, completion in zip(group, completions, strict=True):
                text = completion.text
                actions[slot] = CutAnswer(text, cut) if completion.cut else text
        return actions

    def conversation(self, slot: int) -> tuple[list[Message], list[Image.Image]]:
        """Return what the model was shown last in a slot: messages, and the images in them."""
        return self._slots[slot].dialogue.shown(self.engine.system, self.options.history)


def weights_digest(path: str | Path) -> str:
    """Return what tells one checkpoint from another: a hash of its weight files.

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
