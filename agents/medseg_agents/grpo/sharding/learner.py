"""The chat learner with FSDP2 in the place of RLlib's DDP."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from medseg_agents.grpo.learner import ChatLearner
from medseg_agents.grpo.sharding.agreement import largest
from medseg_agents.grpo.sharding.fsdp import clip_shards, shard_module, take_from_first
from medseg_gym.errors import MedSegError


class ShardedChatLearner(ChatLearner):
    """Holds a share of parameters, gradients and Adam's moments; otherwise a `ChatLearner`.

    Every forward and backward pass is made of collective calls, so all learners make the same
    passes in the same order (see `agreement`).
    """

    def _make_module(self) -> Any:
        # Before the optimiser is made: one of unsharded parameters would step what nobody uses.
        module = super()._make_module()
        own: Any = module[DEFAULT_MODULE_ID]
        if not own.shares_images:
            raise MedSegError(
                f"{self.settings.model}: sharded learners need a model that takes features of "
                "images (Qwen3-VL), so that learners without an image can make the same passes; "
                "leave out --shard"
            )
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        take_from_first(own, self._device)
        shard_module(own, self._device, self.settings.precision)
        own.is_sharded = True
        return module

    def _map_module_to_device(self, module: Any) -> None:
        """Do nothing: sharding moves a layer at a time, the whole may not fit."""

    def _make_modules_ddp_if_necessary(self) -> None:
        """Do nothing: the module is sharded since it was made."""

    def _without_sync(self, waits: bool) -> contextlib.AbstractContextManager[Any]:
        # Reduced after every micro-batch: gradients kept until the last would be a whole model.
        return contextlib.nullcontext()

    @staticmethod
    def _get_clip_function() -> Any:
        return clip_shards

    def _all_share(self, shares: bool) -> bool:
        return not largest(not shares, self._device)

    def _read_prompts(self, tensors: dict[str, Any], reference: bool = False) -> Any:
        return self.chat_module.read_prompts_apart(tensors, reference)

    def _match(self, tensors: dict[str, Any]) -> None:
        self.chat_module.match_images(tensors)

    # state --------------------------------------------------------------------------------------
    def _get_optimizer_state(self) -> dict[str, Any]:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        module = self._module[DEFAULT_MODULE_ID]
        return {
            name: {
                "module_id": self._optimizer_name_to_module[name],
                "state": get_optimizer_state_dict(module, optimiser, options=options),
            }
            for name, optimiser in self._named_optimizers.items()
        }

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        # Not strict: a parameter that never had a gradient has no state to load.
        options = StateDictOptions(full_state_dict=True, strict=False)
        module = self._module[DEFAULT_MODULE_ID]
        for name, optimiser in self._named_optimizers.items():
            saved = by_parameter_name(state[name]["state"], self._names_of(optimiser))
            set_optimizer_state_dict(module, optimiser, saved, options=options)

    def _names_of(self, optimiser: torch.optim.Optimizer) -> list[str]:
        names = {p: name for name, p in self._module[DEFAULT_MODULE_ID].named_parameters()}
        return [names[p] for group in optimiser.param_groups for p in group["params"]]


def by_parameter_name(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return an optimiser's state by names of parameters, where it is by their numbers.

    Args:
        state: `state_dict()` of an optimiser, or of `get_optimizer_state_dict`.
        names: Of the optimiser's parameters, in order.
    """
    if any(isinstance(key, str) for key in state["state"]):
        return state
    return {
        "state": {names[number]: value for number, value in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[number] for number in group["params"]]}
            for group in state["param_groups"]
        ],
    }
