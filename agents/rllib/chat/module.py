"""A vision-language model of transformers as an RLModule."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from agents.llm.answering import Answerer, ModelOptions
from agents.llm.checkpoint import load_model, load_processor
from agents.llm.processed_pictures import encode_distinct
from agents.llm.sampling import forbidden_tokens
from agents.llm.turn_cache import without_adapters
from agents.rllib.chat.settings import ChatSettings
from medseg_gym.envs.chat_view import Message


class HFChatModule(TorchRLModule, InferenceOnlyAPI):
    """Answers while playing, and gives log-probabilities, entropies and values while learning.

    `model_config` is `{"settings": ChatSettings as a mapping, "values": whether there is a value
    head, "seed": of new weights}`. Its state is what is trained and nothing else, so that adapters
    of a large model travel without it.

    Args:
        *args: Of RLlib.
        **kwargs: Of RLlib.
    """

    framework = "torch"

    def setup(self) -> None:
        """Load the model; add adapters, reference and value head where the settings ask for it."""
        config: dict[str, Any] = dict(self.model_config)  # type: ignore[arg-type]
        self.settings = ChatSettings(**config["settings"])
        self.processor = load_processor(self.settings.model)
        model = load_model(self.settings.model, dtype=self.settings.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.get("seed", 0))
            self.lm = self._prepare(model)
        learns = not self.inference_only
        self.forbidden = forbidden_tokens(self.lm, self.processor)
        if learns and self.settings.kl and not self.settings.lora_rank:
            self.reference = copy.deepcopy(self.lm).requires_grad_(False)
        if learns and config.get("values"):
            width = self.base.get_output_embeddings().weight.shape[1]
            self.value_head = nn.Linear(width, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.action_dist_cls = None

    def _prepare(self, model: Any) -> Any:
        settings = self.settings
        if settings.lora_rank:
            from peft import LoraConfig, get_peft_model

            model = get_peft_model(
                model,
                LoraConfig(
                    r=settings.lora_rank,
                    lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
                    target_modules="all-linear",
                    task_type="CAUSAL_LM",
                ),
            )
        if not settings.train_vision:
            for name, parameter in model.named_parameters():
                if ".visual." in name or ".vision_tower." in name:
                    parameter.requires_grad_(False)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        return model

    @property
    def base(self) -> Any:
        """The model of transformers, inside adapters if there are any."""
        return without_adapters(self.lm)

    def get_non_inference_attributes(self) -> list[str]:
        """What only a learner has."""
        return ["reference", "value_head"]

    # playing ------------------------------------------------------------------------------------
    def answerer(self, system: list[Message], temperature: float | None = None) -> Answerer:
        """Who answers conversations with this module's weights.

        Args:
            system: What conversations begin with.
            temperature: None is that of training, 0 takes the likeliest tokens.
        """
        settings = self.settings
        self.lm.eval()
        options = ModelOptions(
            temperature=settings.temperature if temperature is None else temperature,
            max_new_tokens=settings.max_new_tokens,
            history=settings.history,
        )
        return Answerer(self.lm, self.processor, system, options)

    def autocast(self) -> Any:
        """Context of the settings' precision."""
        device = self.lm.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    # learning -----------------------------------------------------------------------------------
    @property
    def shares_pictures(self) -> bool:
        """Whether the model can be given features of pictures that are computed already."""
        return "mm_encoder_outputs" in inspect.signature(self.base.model.forward).parameters

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Log-probabilities and entropies of what was said, and values, see `collate`.

        Returns:
            `log_probs` and `entropy`, (N,); `reference_log_probs`, (N,), where there is a
            reference; `values`, (M,), where there is a value head.
        """
        with self.autocast():
            hidden = self._hidden(self.lm, batch)
        logits = self._logits(self.lm, hidden, batch)
        found = {"log_probs": _of(logits, batch["said"])}
        with torch.set_grad_enabled(self.settings.entropy != 0 and torch.is_grad_enabled()):
            found["entropy"] = _entropy(logits)
        if hasattr(self, "value_head"):
            read = hidden.detach() if batch.get("head_alone") else hidden
            found["values"] = self._values(read, batch)
        if self.settings.kl:
            with torch.no_grad(), self.autocast():
                found["reference_log_probs"] = self._reference(batch)
        return found

    _forward = _forward_train

    def compute_values(self, batch: dict[str, Any]) -> torch.Tensor:
        """Values of the turns, (M,)."""
        with self.autocast():
            return self._values(self._hidden(self.lm, batch), batch)

    def _values(self, hidden: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        return self.value_head(hidden[batch["ends"]].float())[:, 0]

    def _reference(self, batch: dict[str, Any]) -> torch.Tensor:
        if not self.settings.lora_rank:
            logits = self._logits(self.reference, self._hidden(self.reference, batch), batch)
        else:
            with self.lm.disable_adapter():
                logits = self._logits(self.lm, self._hidden(self.lm, batch), batch)
        return _of(logits, batch["said"])

    def _hidden(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """Last hidden states, (B * L) x width."""
        inner, given = without_adapters(model).model, dict(batch["pictures"])
        if self.shares_pictures:
            given = encode_distinct(
                inner, given["pixel_values"], given["image_grid_thw"], batch["picture_of"].tolist()
            )
        takes = inspect.signature(inner.forward).parameters
        if "mm_token_type_ids" in takes:
            given["mm_token_type_ids"] = batch["mm_token_type_ids"]
        out = inner(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            use_cache=False,
            **given,
        )
        return out.last_hidden_state.flatten(0, 1)

    def _logits(self, model: Any, hidden: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Of the tokens before what was said, N x V float32, as they are drawn from."""
        base = without_adapters(model)
        # Only where something was said: logits are the largest tensor of all.
        logits = base.get_output_embeddings()(hidden[batch["before"]]).float()
        if self.settings.temperature != 1:
            logits = logits / self.settings.temperature
        forbidden = torch.tensor(self.forbidden, dtype=torch.long, device=logits.device)
        return logits.index_fill(1, forbidden, -torch.inf)

    # weights ------------------------------------------------------------------------------------
    def trained(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def get_state(
        self,
        components: Any = None,
        *,
        not_components: Any = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Copies of what is trained, on the CPU; without what only a learner has if asked so.

        Tensors, because numpy has no bfloat16.
        """
        aside = tuple(self.get_non_inference_attributes()) if inference_only else ()
        return {
            name: p.detach().cpu().clone()
            for name, p in self.trained().items()
            if name.partition(".")[0] not in aside
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_state` gave; a learner's own parts are ignored where there are none."""
        own = self.trained()
        aside = self.get_non_inference_attributes()
        unknown = [n for n in state if n not in own and n.partition(".")[0] not in aside]
        if unknown:
            raise ValueError(f"weights of another model: {', '.join(unknown[:3])} ...")
        with torch.no_grad():
            for name, value in state.items():
                if name in own:
                    own[name].copy_(torch.as_tensor(value))

    def save(self, folder: Any) -> None:
        """Write model (or adapters) and processor as a checkpoint that plays as `llm:FOLDER`."""
        self.lm.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def _of(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, dim=-1).gather(1, chosen[:, None])[:, 0]


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    log_probs = torch.log_softmax(logits, dim=-1)
    # Forbidden tokens: 0 times minus infinity is 0 here.
    return -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(-1)
