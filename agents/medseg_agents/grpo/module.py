"""A vision-language model of transformers as an RLModule."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from medseg_agents.grpo.forward.checkpointed_layers import checkpoint_layers
from medseg_agents.grpo.forward.prompt_cache import (
    Layers,
    prefix_cache,
    recorded,
    recording_cache,
)
from medseg_agents.grpo.forward.token_log_probs import token_log_probs
from medseg_agents.grpo.settings import ChatSettings
from medseg_agents.llm.checkpoint import adapter_rank, load_processor
from medseg_agents.llm.engine_options import EngineOptions, ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_agents.llm.processed_images import encode_distinct
from medseg_agents.llm.sampling import forbidden_tokens
from medseg_agents.llm.turn_cache import cache_argument, can_keep, positions, without_adapters
from medseg_agents.llm.weights.reference import as_reference, keep_reference
from medseg_agents.llm.weights.save import save_model
from medseg_agents.llm.weights.start import load_for_training
from medseg_gym.envs.views.messages import Message


class HFChatModule(TorchRLModule, InferenceOnlyAPI):
    """Generates while playing, and gives log-probabilities, entropies and values while learning.

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
        self.processor = load_processor(self.settings.model, self.settings.base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.get("seed", 0))
            self.lm = self._prepare()
        learns = not self.inference_only
        self.forbidden = forbidden_tokens(self.lm, self.processor)
        if learns and self.settings.beta:
            if not hasattr(self.lm, "peft_config"):
                self.reference = copy.deepcopy(self.lm).requires_grad_(False)
            elif adapter_rank(self.settings.model) is not None:
                keep_reference(self.lm, self.settings.model)
        if learns and config.get("values"):
            width = self.base.get_output_embeddings().weight.shape[1]
            self.value_head = nn.Linear(width, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.action_dist_cls = None

    def _prepare(self) -> Any:
        settings = self.settings
        model, self.origin = load_for_training(
            settings.model, settings.lora_rank, settings.lora_alpha, settings.dtype, settings.base
        )
        if not settings.train_vision:
            for name, parameter in model.named_parameters():
                if ".visual." in name or ".vision_tower." in name:
                    parameter.requires_grad_(False)
        if settings.gradient_checkpointing:
            checkpoint_layers(model)
        return model

    @property
    def base(self) -> Any:
        """The model of transformers, inside adapters if there are any."""
        return without_adapters(self.lm)

    def get_non_inference_attributes(self) -> list[str]:
        """Return the names of what only a learner has."""
        return ["reference", "value_head"]

    # playing ------------------------------------------------------------------------------------
    def engine(self, system: list[Message], temperature: float | None = None) -> TransformersEngine:
        """Make the engine of transformers that generates with this module's weights.

        Args:
            system: Messages that conversations begin with.
            temperature: None is that of training, 0 takes the likeliest tokens.
        """
        self.lm.eval()
        options = self.generation_options(temperature)
        return TransformersEngine(self.lm, self.processor, system, options)

    def generation_options(self, temperature: float | None = None) -> ModelOptions:
        """Return how completions are drawn; see `engine`."""
        settings = self.settings
        return ModelOptions(
            temperature=settings.temperature if temperature is None else temperature,
            max_new_tokens=settings.max_completion_length,
            history=settings.history,
            **{field.name: getattr(settings, field.name) for field in fields(EngineOptions)},
        )

    def autocast(self) -> Any:
        """Return a context of the settings' precision."""
        device = self.lm.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def round_for_playing(self) -> None:
        """Keep weights of linear layers in the type that autocast computes them in.

        Completions stay what they are, for autocast would round the same weights at every call; but
        they take 2 bytes a parameter, not 4 and a rounded copy of 2. For a module that only plays:
        the output layer stays as it is where it is the input embeddings, too.
        """
        if self.settings.precision != "bfloat16":
            return
        embeddings = self.base.get_input_embeddings().weight
        for layer in self.lm.modules():
            if isinstance(layer, nn.Linear) and layer.weight is not embeddings:
                for parameter in layer.parameters(recurse=False):
                    parameter.data = parameter.data.to(torch.bfloat16)

    # learning -----------------------------------------------------------------------------------
    @property
    def shares_images(self) -> bool:
        """Return whether the model can be given features of images that are computed already."""
        return "mm_encoder_outputs" in inspect.signature(self.base.model.forward).parameters

    @property
    def shares_prompts(self) -> bool:
        """Return whether the first prompt of a group's episodes is computed once for all."""
        settings = self.settings
        return (
            settings.share_prompts
            and settings.num_generations > 1
            and self.shares_images
            and can_keep(self.base)
        )

    def read_prompts(self, prompts: dict[str, Any], reference: bool = False) -> Layers:
        """Compute keys and values of shared prompts.

        Args:
            prompts: `SharedPrompts.tensors`.
            reference: By the starting model.
        """
        with self.autocast(), self._model(reference) as model:
            cache = recording_cache()
            given = self._images(model, prompts)
            grids = given.get("image_grid_thw")
            given["position_ids"] = positions(model, {**prompts, "image_grid_thw": grids})
            without_adapters(model).model(
                input_ids=prompts["input_ids"],
                attention_mask=prompts["attention_mask"],
                use_cache=True,
                **{cache_argument(model): cache},
                **given,
            )
        return recorded(cache)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Compute log-probabilities and entropies of completions, and values.

        Args:
            batch: See `collate`. Where prompts are shared, also their keys and values
                (`prompt_layers`) or what they are computed from with gradients (`prompts`); and
                those of the reference (`reference_layers`), where there is one. With
                `log_probs_only` the reference is not asked.
            **kwargs: Of RLlib.

        Returns:
            `log_probs` and `entropy`, (N,) of the completion tokens; `reference_log_probs`, (N,),
            where there is a reference; `values`, (M,), where there is a value head;
            `prompt_layers`, where they were computed.
        """
        outputs: dict[str, Any] = {}
        layers = batch.get("prompt_layers")
        if "prompts" in batch:
            layers = outputs["prompt_layers"] = self.read_prompts(batch["prompts"])
        with self.autocast():
            hidden = self._hidden(self.lm, batch, layers)
        outputs["log_probs"], outputs["entropy"] = self._log_probs(
            self.lm, hidden, batch, self.settings.entropy != 0
        )
        if hasattr(self, "value_head"):
            read = hidden.detach() if batch.get("value_only") else hidden
            outputs["values"] = self._values(read, batch)
        if self.settings.beta and not batch.get("log_probs_only"):
            with torch.no_grad(), self._model(reference=True) as model:
                with self.autocast():
                    hidden = self._hidden(model, batch, batch.get("reference_layers"))
                # Outside of autocast, as the log-probabilities that they are compared with.
                outputs["reference_log_probs"], _ = self._log_probs(model, hidden, batch)
        return outputs

    _forward = _forward_train

    def compute_values(self, batch: dict[str, Any]) -> torch.Tensor:
        """Compute the values of turns, (M,)."""
        with self.autocast():
            return self._values(self._hidden(self.lm, batch), batch)

    def _values(self, hidden: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        values: torch.Tensor = self.value_head(hidden[batch["prompt_ends"]].float())
        return values[:, 0]

    @contextlib.contextmanager
    def _model(self, reference: bool) -> Iterator[Any]:
        if not reference:
            yield self.lm
        elif hasattr(self, "reference"):
            yield self.reference
        else:
            with as_reference(self.lm) as model:
                yield model

    def _hidden(
        self, model: Any, batch: dict[str, Any], prompt_layers: Layers | None = None
    ) -> torch.Tensor:
        """Last hidden states, (B * L) x width; see `collate`."""
        inner, given = without_adapters(model).model, self._images(model, batch)
        prefix = batch.get("prefix_length", 0)
        if prefix and prompt_layers is not None:
            where = positions(model, {**batch, "image_grid_thw": batch["grids"]})
            given["position_ids"] = where[:, :, prefix:]
            given[cache_argument(model)] = prefix_cache(prompt_layers, batch["prompt_index"])
        elif "mm_token_type_ids" in inspect.signature(inner.forward).parameters:
            given["mm_token_type_ids"] = batch["mm_token_type_ids"]
        out = inner(
            input_ids=batch["input_ids"][:, prefix:],
            attention_mask=batch["attention_mask"],
            use_cache=bool(prefix),
            **given,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)

    def _images(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        given = dict(batch["images"])
        if not (self.shares_images and given):
            return given
        return encode_distinct(
            without_adapters(model).model,
            given["pixel_values"],
            given["image_grid_thw"],
            batch["image_index"].tolist(),
        )

    def _log_probs(
        self, model: Any, hidden: torch.Tensor, batch: dict[str, Any], entropy_learns: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies of the N completion tokens, as they were drawn."""
        return token_log_probs(
            without_adapters(model).get_output_embeddings(),
            hidden[batch["logit_index"]],  # of completion tokens alone
            batch["completion_ids"],
            temperature=self.settings.temperature,
            forbidden=self.forbidden,
            chunk=self.settings.logit_chunk,
            entropy_learns=entropy_learns,
        )

    # weights ------------------------------------------------------------------------------------
    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def get_state(
        self,
        components: Any = None,
        *,
        not_components: Any = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Return copies of trained parameters, on the CPU; without a learner's own if asked so.

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

    def save(self, folder: Any, facts: Mapping[str, Any] | None = None) -> None:
        """Write model (or adapters) and processor as a checkpoint that plays as `llm:FOLDER`.

        Args:
            folder: To write into.
            facts: What `medseg_model.json` says beside where the weights come from.
        """
        dtype = self.settings.save_dtype
        save_model(self.lm, self.processor, folder, self.origin, facts, dtype)
