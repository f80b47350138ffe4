"""The learner: whole groups in every gradient step, gradients accumulated over small batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from medseg_agents.arrays.optimisers import rate_over_run
from medseg_agents.grpo.connectors import GROUP, ROWS, GroupAdvantages, TurnGAE, TurnsToTokens
from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.objective import clipped_objective, k3, token_weights
from medseg_agents.grpo.rollout.collate import collate
from medseg_agents.grpo.rollout.token_rows import TokenRow
from medseg_agents.grpo.settings import ChatSettings
from medseg_agents.grpo.shared_prompts import SharedPrompts

ITERATION = "iteration"
"""Entry of `timesteps` with the number of the iteration, from 0."""


class ChatLearner(TorchLearner):
    """Learns from whole groups of episodes.

    An update is given episodes, turns them into rows of tokens with advantages, and takes
    `epochs * minibatches` gradient steps, the same number in every learner.
    """

    config: Any  # RLlib's annotation is that of every algorithm
    _module: Any
    _device: Any
    _learner_connector: Any

    @property
    def settings(self) -> ChatSettings:
        """Of the algorithm."""
        return self.config.settings

    @property
    def chat_module(self) -> Any:
        """The `HFChatModule`, without RLlib's wrapper for several learners."""
        return self._module[DEFAULT_MODULE_ID].unwrapped()

    def build(self) -> None:
        """Build RLlib's parts, then the connectors."""
        super().build()
        settings, config = self.settings, self.config
        self._learner_connector.append(TurnsToTokens())
        if settings.advantage == "gae":
            self._learner_connector.append(
                TurnGAE(
                    config.gamma,
                    settings.gae_lambda,
                    settings.scale,
                    settings.micro_batch,
                    self._device,
                )
            )
        else:
            self._learner_connector.append(
                GroupAdvantages(settings.advantage, settings.scale, settings.group_size)
            )
        self._steps_taken = 0

    def get_parameters(self, module: Any) -> list[Any]:
        """What is trained."""
        return [p for p in module.parameters() if p.requires_grad]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """AdamW on what is trained."""
        parameters = self.get_parameters(self._module[module_id])
        optimiser = torch.optim.AdamW(
            parameters,
            lr=config.lr,
            betas=(0.9, self.settings.beta2),
            weight_decay=self.settings.weight_decay,
        )
        self.register_optimizer(
            module_id=module_id,
            optimizer=optimiser,
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    # one update ---------------------------------------------------------------------------------
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Set the learning rate of this iteration."""
        settings = self.settings
        self._iteration = int(timesteps.get(ITERATION, 0))
        factor = rate_over_run(
            settings.schedule, settings.iterations, settings.warmup, settings.final_rate
        )(self._iteration)
        for optimiser in self._named_optimizers.values():
            self._set_optimizer_lr(optimiser, self.config.lr * factor)
        self.metrics.log_value((DEFAULT_MODULE_ID, "lr"), self.config.lr * factor, window=1)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Nothing: RLlib's own schedule would set the rate a second time."""

    def _create_iterator_if_necessary(
        self, *, training_data: Any, num_epochs: int = 1, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        episodes = training_data.episodes
        batch = self._learner_connector(
            rl_module=self.module,
            batch={},
            episodes=episodes,
            shared_data={},
            metrics=self.metrics,
        )
        rows: list[TokenRow] = batch[DEFAULT_MODULE_ID][ROWS]
        groups = [episode.custom_data[GROUP] for episode in episodes]
        names = sorted(set(groups))
        generator = np.random.default_rng([self.config.seed or 0, self._iteration])
        self._steps_taken = 0
        for _ in range(num_epochs):
            order = generator.permutation(len(names)) if num_epochs > 1 else range(len(names))
            for part in np.array_split(np.asarray(order), self.settings.minibatches):
                chosen = {names[i] for i in part}
                taken = [row for row in rows if groups[row.episode] in chosen]
                # An object array: RLlib's batches are counted by the length of their columns.
                column = np.empty(len(taken), object)
                column[:] = taken
                steps = sum(len(row.ends) for row in taken)
                yield MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch({ROWS: column})}, steps)

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """One gradient step; replaces RLlib's, which computes a whole batch at once."""
        # Rows of like length together: little is padding.
        rows: list[TokenRow] = sorted(
            batch[DEFAULT_MODULE_ID][ROWS], key=lambda row: len(row.tokens)
        )
        for optimiser in self._optimizer_parameters:
            optimiser.zero_grad(set_to_none=True)
        weights = self._weights(rows)
        size = self.settings.micro_batch
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        prompts, shared = self._prompts(rows, len(parts) > 1)
        figures: dict[str, torch.Tensor] = {}
        loss = torch.zeros(())
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            more = dict(shared)
            if prompts:
                more |= {"prompts": prompts.tensors} if last else {"prompt_layers": prompts.leaves}
            with self._alone(not last):
                loss = loss + self._accumulate(part, weights, figures, prompts, more)
        found = {name: float(value) for name, value in figures.items()}
        self._check(found)
        gradients = {name: p.grad for name, p in self._params.items() if p.grad is not None}
        self.apply_gradients(self.postprocess_gradients(gradients))
        self._log(found)
        self._steps_taken += 1
        return {}, {DEFAULT_MODULE_ID: loss}, {}

    def _prompts(
        self, rows: list[TokenRow], several: bool
    ) -> tuple[SharedPrompts | None, dict[str, Any]]:
        """What rows of a step begin with in common, and the reference's keys and values of it."""
        module = self.chat_module
        if not module.shares_prompts:
            return None, {}
        image = module.base.config.image_token_id
        prompts = SharedPrompts(rows, module.processor, image, self._device)
        if not prompts:
            return None, {}
        shared: dict[str, Any] = {}
        with torch.no_grad():
            if several:
                prompts.collect(module.read_prompts(prompts.tensors))
            if self.settings.kl:
                shared["reference_layers"] = module.read_prompts(prompts.tensors, reference=True)
        return prompts, shared

    def _accumulate(
        self,
        part: list[TokenRow],
        weights: dict[int, float],
        figures: dict[str, torch.Tensor],
        prompts: SharedPrompts | None,
        more: dict[str, Any],
    ) -> torch.Tensor:
        module = self.chat_module
        tensors: dict[str, Any] = collate(
            part,
            module.processor,
            module.base.config.image_token_id,
            module.shares_pictures,
            weights,
            self._device,
            prompts,
        )
        tensors |= more
        # Values that know nothing yet shall not move the model either.
        tensors["head_alone"] = self._iteration < self.settings.value_warmup
        out = self.module.forward_train({DEFAULT_MODULE_ID: tensors})
        losses = self.compute_losses(fwd_out=out, batch={DEFAULT_MODULE_ID: tensors})
        loss = losses[DEFAULT_MODULE_ID]
        layers = out[DEFAULT_MODULE_ID].get("prompt_layers")
        if prompts and layers:
            loss = loss + prompts.carried(layers)
        loss.backward()
        for name, value in self._figures.items():
            before = figures.get(name)
            if before is None:
                figures[name] = value
            else:
                most = name == "ratio_off"
                figures[name] = torch.maximum(before, value) if most else before + value
        return losses[DEFAULT_MODULE_ID].detach().cpu()

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """The clipped objective, and what the settings add to it."""
        settings = self.settings
        weights, log_probs = batch["weights"], fwd_out["log_probs"]
        loss, figures = clipped_objective(
            log_probs,
            batch["old_log_probs"],
            batch["advantages"],
            weights,
            settings.clip_low,
            settings.clip_high,
        )
        figures["tokens"] = torch.ones_like(log_probs).sum()
        figures["entropy"] = fwd_out["entropy"].detach().sum()
        if settings.entropy:
            loss = loss - settings.entropy * (fwd_out["entropy"] * weights).sum()
        if "reference_log_probs" in fwd_out:
            apart = k3(fwd_out["reference_log_probs"] - log_probs)
            loss = loss + settings.kl * (apart * weights).sum()
            figures["reference_kl"] = apart.detach().sum()
        if "values" in fwd_out:
            if batch["head_alone"]:
                loss = loss * 0
            errors = (fwd_out["values"] - batch["value_targets"]) ** 2
            loss = loss + settings.value_weight * errors.sum() / self._turns
            figures["value_error"] = errors.detach().sum()
            figures["turns"] = torch.ones_like(errors).sum()
            targets = batch["value_targets"]
            figures["targets"] = targets.sum()
            figures["targets_squared"] = (targets**2).sum()
        self._figures = figures
        return loss

    def _weights(self, rows: list[TokenRow]) -> dict[int, float]:
        """Weight of a token of each episode in this gradient step."""
        settings = self.settings
        lengths: dict[int, int] = {}
        for row in rows:
            lengths[row.episode] = lengths.get(row.episode, 0) + int(row.said.sum())
        self._turns = sum(len(row.ends) for row in rows)
        tokens = None
        if self.config.num_learners > 1 and settings.loss == "dapo":
            # Gradients are averaged over learners, so each divides by their mean number of tokens.
            total = torch.tensor(float(sum(lengths.values())), device=self._device)
            torch.distributed.all_reduce(total)
            tokens = float(total) / self.config.num_learners
        most = settings.max_new_tokens * max(1, self.config.max_turns)
        weights = token_weights(list(lengths.values()), settings.loss, most, tokens)
        return dict(zip(lengths, weights.tolist(), strict=True))

    def _alone(self, alone: bool) -> Any:
        """Keeps gradients here until the last part of a step."""
        module: Any = self._module[DEFAULT_MODULE_ID]
        if alone and self.config.num_learners > 1:
            return module.no_sync()
        return contextlib.nullcontext()

    def _check(self, found: dict[str, float]) -> None:
        """Before anything was learned from them, answers are as probable as when they were drawn.

        Raises:
            LogProbMismatch: They are not; no weight has changed then.
        """
        off, tolerance = found["ratio_off"], self.settings.ratio_tolerance
        if self._steps_taken or tolerance is None or off <= tolerance:
            return
        raise LogProbMismatch(
            f"before the first gradient step of iteration {self._iteration} a token's probability "
            f"differs by a factor of 1 +- {off:.2g} between sampler and learner (tolerance "
            f"{tolerance}): weights, masks or positions are not the same; for bfloat16, whose "
            "rounding does that, give a larger ratio_tolerance"
        )

    def _log(self, found: dict[str, float]) -> None:
        tokens = max(1.0, found["tokens"])
        shown = {
            "clip_fraction": found["clipped"] / tokens,
            "sampler_kl": found["kl"] / tokens,
            "entropy": found["entropy"] / tokens,
        }
        if "reference_kl" in found:
            shown["reference_kl"] = found["reference_kl"] / tokens
        if "value_error" in found:
            turns = found["turns"]
            shown["value_error"] = found["value_error"] / turns
            spread = found["targets_squared"] / turns - (found["targets"] / turns) ** 2
            shown["explained_variance"] = 1 - shown["value_error"] / max(spread, 1e-8)
        if self._steps_taken == 0:
            shown["first_ratio_off"] = found["ratio_off"]
        for name, value in shown.items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)

    # state --------------------------------------------------------------------------------------
    def _get_optimizer_state(self) -> dict[str, Any]:
        # As RLlib's, but tensors stay tensors: numpy has no bfloat16.
        return {
            name: {
                "module_id": self._optimizer_name_to_module[name],
                "state": optimiser.state_dict(),
            }
            for name, optimiser in self._named_optimizers.items()
        }
