"""The chat module of sharded learners."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from PIL import Image

from medseg_agents.grpo.module import HFChatModule
from medseg_agents.grpo.sharding.agreement import largest
from medseg_agents.grpo.sharding.fsdp import share_of, whole
from medseg_agents.grpo.shared_prompts import Layers
from medseg_agents.llm.turn_cache import without_adapters

BLANK = "blank_image"
"""Entry of a batch without images with one that weighs nothing, where another learner has some."""

_BLANK_SIDE = 64


class ShardedChatModule(HFChatModule):
    """A chat module that may be sharded; runners have it whole, as any other.

    Args:
        *args: Of RLlib.
        **kwargs: Of RLlib.
    """

    is_sharded = False
    """Set by a learner once the parameters are."""

    _unused: torch.Tensor | None = None

    def autocast(self) -> Any:
        """Return a context that does nothing where FSDP2 casts the weights itself."""
        return contextlib.nullcontext() if self.is_sharded else super().autocast()

    # passes -------------------------------------------------------------------------------------
    def read_prompts_apart(self, prompts: dict[str, Any], reference: bool = False) -> Layers:
        """Call `read_prompts` from outside a forward pass: it is a pass of its own then."""
        return self.read_prompts(prompts, reference)

    def read_prompts(self, prompts: dict[str, Any], reference: bool = False) -> Layers:
        """Compute keys and values of shared prompts; see `HFChatModule`.

        FSDP2 gathers a layer for its backward pass when the gradient of the layer's output comes,
        and keys and values leave through a cache that it does not see. So the last output, of which
        nothing is used, is added to the last keys and values with weight 0: its gradient, zero,
        comes before theirs, and every layer is gathered in time.
        """
        if not self.is_sharded:
            return super().read_prompts(prompts, reference)
        outputs: list[Any] = []
        model = self.reference if reference and hasattr(self, "reference") else self.lm
        hook = without_adapters(model).model.register_forward_hook(
            lambda module, given, output: outputs.append(output.last_hidden_state)
        )
        try:
            layers = super().read_prompts(prompts, reference)
        finally:
            hook.remove()
        unused = self._with_unused(outputs[-1]).sum() * 0
        keys, values = layers[-1]
        return [*layers[:-1], (keys + unused.to(keys.dtype), values + unused.to(values.dtype))]

    def compute_values(self, batch: dict[str, Any]) -> torch.Tensor:
        """Compute the values of turns, (M,)."""
        if self.is_sharded:
            self.match_images(batch)
        return super().compute_values(batch)

    def match_images(self, batch: dict[str, Any]) -> None:
        """Add an image that weighs nothing where another learner has images and this one none.

        Passes of the vision tower are collective calls as all others. A collective call itself.

        Args:
            batch: See `collate`; or `SharedPrompts.tensors`.
        """
        device = batch["input_ids"].device
        own = bool(batch["images"])
        if largest(own, device) and not own:
            pixels = np.zeros((_BLANK_SIDE, _BLANK_SIDE, 3), np.uint8)
            made = self.processor.image_processor(
                images=[Image.fromarray(pixels)], return_tensors="pt"
            )
            batch[BLANK] = {name: value.to(device) for name, value in made.items()}

    def _hidden(self, model: Any, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self._with_unused(super()._hidden(model, batch, *args, **kwargs))

    def _images(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        blank = batch.get(BLANK)
        if blank is not None:
            features = without_adapters(model).model.get_image_features(
                blank["pixel_values"], blank["image_grid_thw"], return_dict=True
            )
            # Of the one image, from the last layer and from those that feed the decoder besides.
            parts = [features.pooler_output[0], *(one[0] for one in features.deepstack_features)]
            self._unused = torch.stack([part.float().sum() for part in parts]).sum() * 0
        return super()._images(model, batch)

    def _with_unused(self, hidden: torch.Tensor) -> torch.Tensor:
        """Tie the features of a blank image to what is computed, so that they have gradients."""
        unused, self._unused = self._unused, None
        return hidden if unused is None else hidden + unused.to(hidden.dtype)

    # weights ------------------------------------------------------------------------------------
    def get_state(
        self,
        components: Any = None,
        *,
        not_components: Any = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Return trained parameters, see `HFChatModule`; all learners must be asked.

        One parameter is gathered at a time, and kept by the first learner alone: others return
        nothing.
        """
        if not self.is_sharded:
            return super().get_state(
                components, not_components=not_components, inference_only=inference_only, **kwargs
            )
        aside = tuple(self.get_non_inference_attributes()) if inference_only else ()
        first = torch.distributed.get_rank() == 0
        state = {}
        for name, parameter in self.trained().items():
            if name.partition(".")[0] in aside:
                continue
            value = whole(parameter.detach())
            if first:
                state[name] = value.cpu().clone()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up whole parameters, the same on every learner; each keeps its shard."""
        if self.is_sharded:
            own = self.trained()
            state = {
                name: share_of(torch.as_tensor(value), own[name]) if name in own else value
                for name, value in state.items()
            }
            unknown = [name for name in state if name not in own]
            if unknown:
                raise ValueError(f"weights of another model: {', '.join(unknown[:3])} ...")
            with torch.no_grad():
                for name, value in state.items():
                    own[name].copy_(value)
            return
        super().set_state(state)
