"""A `rollout_func` for TRL: whole conversations on the native batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessorList

from medseg_agents.llm.prompt_tokens import PromptTokens
from medseg_agents.llm.sampling import Forbid, end_tokens, forbidden_tokens
from medseg_agents.trl.token_logprobs import TokenLogprobs
from medseg_gym.envs.chat_vector import MedSegChatVectorEnv
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.envs.views.messages import text_message, user_message
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs


@dataclass
class _Slot:
    """One conversation in tokens, as they were sampled: nothing is tokenized twice."""

    prompt: list[int]
    completion: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)  # 1 where the model generated it
    logprobs: list[float] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    pixels: list[torch.Tensor] = field(default_factory=list)
    grids: list[torch.Tensor] = field(default_factory=list)

    def add(self, tokens: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        self.completion += tokens
        self.sampled += [0 if logprobs is None else 1] * len(tokens)
        self.logprobs += [0.0] * len(tokens) if logprobs is None else logprobs


class ChatRollout:
    """Plays every prompt of a batch in a slot of its own: `GRPOTrainer(rollout_func=...)`.

    A turn is one batched generation for all slots that wait for an answer, then one step of the
    chat environment's native batch, with one decoder call. What the model is fed is what
    `ChatPolicy` would feed it, all images included. Sampling follows the trainer's arguments
    (`temperature`, `top_p`, `top_k`, ...), drawn from torch's generator as TRL's own.

    Args:
        max_new_tokens: Of one turn's completion.
        env_id: Of the chat environment.
        **options: Those of the environment, see `ChatOptions`.
    """

    def __init__(
        self, max_new_tokens: int = 128, env_id: str = IMAGE_CHAT.env_id, **options: Any
    ) -> None:
        if max_new_tokens < 1:
            raise PolicyError(f"need max_new_tokens >= 1, got {max_new_tokens}")
        self.max_new_tokens = max_new_tokens
        self._env_id, self._options = chat_kind(env_id).env_id, options
        self._envs: MedSegChatVectorEnv | None = None
        self._prompt_tokens: PromptTokens | None = None

    def envs(self, count: int) -> MedSegChatVectorEnv:
        """Return the environment with `count` slots; made anew when the number changes."""
        if self._envs is None or self._envs.num_envs != count:
            made = make_envs(count, self._env_id, **self._options)
            assert isinstance(made, MedSegChatVectorEnv)
            self._envs = made
        return self._envs

    def _tokens_of(self, processor: Any) -> PromptTokens:
        if self._prompt_tokens is None or self._prompt_tokens.processor is not processor:
            self._prompt_tokens = PromptTokens(processor)
        return self._prompt_tokens

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """Play one episode for each prompt.

        Args:
            prompts: Keys of cases (`rollout_rows`); TRL gives each as often as its group is large.
            trainer: A `ChatGRPOTrainer`.

        Returns:
            `prompt_ids`, `completion_ids`, `logprobs` (while sampling, over all tokens) and
            `env_mask` (1 where the model generated it), n lists each; `images`, n lists of PIL
            images in the order of their place holders; `outcome`, n `EpisodeSummary`.

        Raises:
            PolicyError: A trainer that would not give the images to the loss, prompts that are
                no keys, or a processor without `image_grid_thw`.
            CaseError: There is no such case.
        """
        from trl.models import unwrap_model_for_generation

        from medseg_agents.trl.trainer import ChatGRPOTrainer

        if not isinstance(trainer, ChatGRPOTrainer):
            raise PolicyError(
                "ChatRollout needs medseg_agents.trl.ChatGRPOTrainer, got "
                f"{type(trainer).__name__}: TRL's own trainer never gives the images that a "
                "rollout makes to the loss"
            )
        if not all(isinstance(prompt, str) for prompt in prompts):
            raise PolicyError(
                "ChatRollout needs keys of cases as prompts: use rollout_rows(source)"
            )
        with (
            torch.no_grad(),
            unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
        ):
            return self._play(prompts, model, trainer.processing_class, trainer.generation_config)

    def _play(
        self, keys: Sequence[str], model: Any, processor: Any, sampling: GenerationConfig
    ) -> dict[str, Any]:
        envs = self.envs(len(keys))
        config = GenerationConfig.from_dict(
            sampling.to_dict()
            | {"max_new_tokens": self.max_new_tokens, "suppress_tokens": None}  # `Forbid` does that
        )
        config.eos_token_id = end_tokens(model, processor)
        forbid = Forbid(forbidden_tokens(model, processor))
        observations, _ = envs.reset(options={"case": list(keys)})
        slots = [_Slot([]) for _ in keys]
        waiting = list(range(len(keys)))
        while waiting:
            self._show(slots, waiting, observations, processor, envs)
            texts = self._generate([slots[i] for i in waiting], model, processor, config, forbid)
            actions: list[str | None] = [None] * len(keys)
            for index, text in zip(waiting, texts, strict=True):
                actions[index] = text
            observations, _, ended, *_ = envs.step(actions)
            waiting = [index for index in waiting if not ended[index]]
        episodes = [envs.engine.episode(slot) for slot in range(len(keys))]
        return {
            "prompt_ids": [slot.prompt for slot in slots],
            "completion_ids": [slot.completion for slot in slots],
            "logprobs": [slot.logprobs for slot in slots],
            "env_mask": [slot.sampled for slot in slots],
            "images": [slot.images for slot in slots],
            "outcome": list(map(EpisodeSummary.of, episodes)),
        }

    def _show(
        self,
        slots: Sequence[_Slot],
        waiting: Sequence[int],
        observations: Any,
        processor: Any,
        envs: MedSegChatVectorEnv,
    ) -> None:
        """Give waiting slots their newest user turn, as tokens and pixels."""
        end, view, system = processor.tokenizer.eos_token, envs.view, envs.system_messages
        count = len(view.image_keys)
        turns = [user_message(observations["text"][index], count) for index in waiting]
        first = not slots[waiting[0]].prompt
        # What comes before a turn is known; the template is asked for what it adds to an answer.
        before = [] if first else [text_message("user", ""), text_message("assistant", "")]
        before = [*system, *before]
        tokens_of = self._tokens_of(processor)
        rendered = [tokens_of.mark([*before, turn]) for turn in turns]
        if not first:
            known = tokens_of.mark(before, add_generation_prompt=False)
            known = replace(known, text=known.text[: known.text.rindex(end) + len(end)])
            if not all(prompt.text.startswith(known.text) for prompt in rendered):
                raise PolicyError(
                    "this chat template shows earlier turns differently when others follow; "
                    "ChatRollout needs one that does not"
                )
            rendered = [prompt.behind(known) for prompt in rendered]
        images = [
            [Image.fromarray(image) for image in view.turn_images(observations, index)]
            for index in waiting
        ]
        given = tokens_of.read(rendered, images)
        if "image_grid_thw" not in given:
            raise PolicyError(
                f"ChatRollout knows processors that give image_grid_thw (Qwen's), not "
                f"{type(processor).__name__}; use make_environment"
            )
        pixels = torch.split(given["pixel_values"], given["image_grid_thw"].prod(-1).tolist())
        for row, index in enumerate(waiting):
            slot = slots[index]
            tokens = given["input_ids"][row][given["attention_mask"][row].bool()].tolist()
            if first:
                slot.prompt = tokens
            else:
                if slot.completion[-1] != processor.tokenizer.eos_token_id:
                    slot.add([processor.tokenizer.eos_token_id])  # the answer was cut off
                slot.add(tokens)
            own = slice(row * count, (row + 1) * count)
            slot.images += images[row]
            slot.pixels += pixels[own]
            slot.grids += given["image_grid_thw"][own]

    def _generate(
        self,
        slots: Sequence[_Slot],
        model: Any,
        processor: Any,
        config: GenerationConfig,
        forbid: Forbid,
    ) -> list[str]:
        """Draw a completion for each slot and keep its tokens; return the texts."""
        rows = [torch.tensor(slot.prompt + slot.completion) for slot in slots]
        pad = processor.tokenizer.pad_token_id
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, pad, padding_side="left")
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1])[None] >= ids.shape[1] - lengths[:, None]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "pixel_values": torch.cat([pixels for slot in slots for pixels in slot.pixels]),
            "image_grid_thw": torch.stack([grid for slot in slots for grid in slot.grids]),
            "mm_token_type_ids": (ids == model.config.image_token_id).long(),
        }
        watch = TokenLogprobs(ids.shape[1], config.temperature or 1.0)
        made = model.generate(
            **{name: value.to(model.device) for name, value in inputs.items()},
            generation_config=config,
            logits_processor=LogitsProcessorList([watch, forbid]),
        )
        new = made[:, ids.shape[1] :]
        logprobs = watch.of(made)
        texts = []
        for slot, tokens, values in zip(slots, new.tolist(), logprobs.tolist(), strict=True):
            ends = [i for i, token in enumerate(tokens) if token in config.eos_token_id]
            length = ends[0] if ends else len(tokens)
            count = length + 1 if ends else length
            slot.add(tokens[:count], values[:count])
            texts.append(processor.tokenizer.decode(tokens[:length], skip_special_tokens=False))
        return texts
