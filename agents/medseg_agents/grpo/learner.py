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

from medseg_agents.arrays.optimisers import parameter_groups, rate_over_run
from medseg_agents.grpo.connectors import GROUP, ROWS, GroupAdvantages, TurnGAE, TurnsToTokens
from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.metrics import learner_metrics
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
        """Settings of the algorithm."""
        settings: ChatSettings = self.config.settings
        return settings

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
                    settings.scale_rewards,
                    settings.micro_batch,
                    self._device,
                )
            )
        else:
            self._learner_connector.append(
                GroupAdvantages(
                    settings.advantage, settings.scale_rewards, settings.num_generations
                )
            )
        self._steps_taken = 0

    def get_parameters(self, module: Any) -> list[Any]:
        """Return what is trained."""
        return [p for p in module.parameters() if p.requires_grad]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make AdamW on what is trained; the value head is a group with a rate of its own."""
        module = self._module[module_id]
        parameters = self.get_parameters(module)
        optimiser = torch.optim.AdamW(
            parameter_groups(module.named_parameters(), config.lr, self.settings.value_lr),
            betas=(0.9, self.settings.adam_beta2),
            weight_decay=self.settings.weight_decay,
        )
        self._rates = [group["lr"] for group in optimiser.param_groups]
        self.register_optimizer(
            module_id=module_id,
            optimizer=optimiser,
            params=parameters,
            lr_or_lr_schedule=config.lr,  # of every group, until `before_gradient_based_update`
        )

    # one update ---------------------------------------------------------------------------------
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Set the learning rates of this iteration."""
        settings = self.settings
        self._iteration = int(timesteps.get(ITERATION, 0))
        factor = rate_over_run(
            settings.schedule, settings.iterations, settings.warmup, settings.final_rate
        )(self._iteration)
        for optimiser in self._named_optimizers.values():
            for group, rate in zip(optimiser.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
        self.metrics.log_value(
            (DEFAULT_MODULE_ID, "learning_rate"), self.config.lr * factor, window=1
        )

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Do nothing: RLlib's own schedule would set the rate a second time."""

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
            for minibatch in np.array_split(np.asarray(order), self.settings.minibatches):
                chosen = {names[i] for i in minibatch}
                taken = [row for row in rows if groups[row.episode] in chosen]
                # An object array: RLlib's batches are counted by the length of their columns.
                column = np.empty(len(taken), object)
                column[:] = taken
                steps = sum(len(row.prompt_ends) for row in taken)
                yield MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch({ROWS: column})}, steps)

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """Take one gradient step; replaces RLlib's, which computes a whole batch at once."""
        # Rows of like length together: little is padding.
        rows: list[TokenRow] = sorted(
            batch[DEFAULT_MODULE_ID][ROWS], key=lambda row: len(row.tokens)
        )
        for optimiser in self._optimizer_parameters:
            optimiser.zero_grad(set_to_none=True)
        weights = self._weights(rows)
        size = self.settings.micro_batch
        micro_batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        prompts, shared = self._prompts(rows, len(micro_batches) > 1)
        totals: dict[str, torch.Tensor] = {}
        loss = torch.zeros(())
        for number, micro_batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            extra = dict(shared)
            if prompts:
                extra |= {"prompts": prompts.tensors} if last else {"prompt_layers": prompts.leaves}
            with self._without_sync(not last):
                loss = loss + self._accumulate(micro_batch, weights, totals, prompts, extra)
        sums = {name: float(value) for name, value in totals.items()}
        self._check(sums)
        gradients = {name: p.grad for name, p in self._params.items() if p.grad is not None}
        self.apply_gradients(self.postprocess_gradients(gradients))
        for name, value in learner_metrics(sums, self._steps_taken == 0).items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        self._steps_taken += 1
        return {}, {DEFAULT_MODULE_ID: loss}, {}

    def _prompts(
        self, rows: list[TokenRow], several: bool
    ) -> tuple[SharedPrompts | None, dict[str, Any]]:
        """Shared first prompts of a step's rows, and the reference's keys and values of them."""
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
            if self.settings.beta:
                shared["reference_layers"] = module.read_prompts(prompts.tensors, reference=True)
        return prompts, shared

    def _accumulate(
        self,
        rows: list[TokenRow],
        weights: dict[int, float],
        totals: dict[str, torch.Tensor],
        prompts: SharedPrompts | None,
        extra: dict[str, Any],
    ) -> torch.Tensor:
        """Add the gradients of some rows to the parameters, and their sums to `totals`.

        Returns:
            Their part of the loss, (), on the CPU.
        """
        module = self.chat_module
        tensors: dict[str, Any] = collate(
            rows,
            module.processor,
            module.base.config.image_token_id,
            module.shares_images,
            weights,
            self._device,
            prompts,
        )
        tensors |= extra
        # Values that know nothing yet shall not move the model either.
        tensors["value_only"] = self._iteration < self.settings.critic_warmup
        out = self.module.forward_train({DEFAULT_MODULE_ID: tensors})
        losses = self.compute_losses(fwd_out=out, batch={DEFAULT_MODULE_ID: tensors})
        loss: torch.Tensor = losses[DEFAULT_MODULE_ID]
        value_of_loss = loss.detach().cpu()
        layers = out[DEFAULT_MODULE_ID].get("prompt_layers")
        if prompts and layers:
            loss = loss + prompts.carried(layers)
        loss.backward()
        for name, value in self._sums.items():
            before = totals.get(name)
            if before is None:
                totals[name] = value
            elif name == "max_ratio_deviation":
                totals[name] = torch.maximum(before, value)
            else:
                totals[name] = before + value
        return value_of_loss

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Compute the clipped objective, and what the settings add to it."""
        settings = self.settings
        weights, log_probs = batch["weights"], fwd_out["log_probs"]
        loss, sums = clipped_objective(
            log_probs,
            batch["old_log_probs"],
            batch["advantages"],
            weights,
            settings.epsilon,
            settings.epsilon_high,
        )
        sums["tokens"] = torch.ones_like(log_probs).sum()
        sums["entropy"] = fwd_out["entropy"].detach().sum()
        if settings.entropy:
            loss = loss - settings.entropy * (fwd_out["entropy"] * weights).sum()
        if "reference_log_probs" in fwd_out:
            kl = k3(fwd_out["reference_log_probs"] - log_probs)
            loss = loss + settings.beta * (kl * weights).sum()
            sums["kl"] = kl.detach().sum()
        if "values" in fwd_out:
            if batch["value_only"]:
                loss = loss * 0
            errors = (fwd_out["values"] - batch["value_targets"]) ** 2
            loss = loss + settings.value_weight * errors.sum() / self._turns
            sums["squared_error"] = errors.detach().sum()
            sums["turns"] = torch.ones_like(errors).sum()
            targets = batch["value_targets"]
            sums["targets"] = targets.sum()
            sums["targets_squared"] = (targets**2).sum()
        self._sums = sums
        return loss

    def _weights(self, rows: list[TokenRow]) -> dict[int, float]:
        """Return the weight of a token of each episode in this gradient step."""
        settings = self.settings
        lengths: dict[int, int] = {}
        for row in rows:
            lengths[row.episode] = lengths.get(row.episode, 0) + int(row.completion_mask.sum())
        self._turns = sum(len(row.prompt_ends) for row in rows)
        tokens = None
        if self.config.num_learners > 1 and settings.loss_type == "dapo":
            # Gradients are averaged over learners, so each divides by their mean number of tokens.
            total = torch.tensor(float(sum(lengths.values())), device=self._device)
            torch.distributed.all_reduce(total)
            tokens = float(total) / self.config.num_learners
        max_tokens = settings.max_completion_length * max(1, self.config.max_turns)
        weights = token_weights(list(lengths.values()), settings.loss_type, max_tokens, tokens)
        return dict(zip(lengths, weights.tolist(), strict=True))

    def _without_sync(self, waits: bool) -> contextlib.AbstractContextManager[Any]:
        """Keep gradients in this process until the last micro-batch of a step."""
        module: Any = self._module[DEFAULT_MODULE_ID]
        if waits and self.config.num_learners > 1:
            context: contextlib.AbstractContextManager[Any] = module.no_sync()
            return context
        return contextlib.nullcontext()

    def _check(self, sums: dict[str, float]) -> None:
        """Compare probabilities with those of the sampler, before anything was learned.

        Raises:
            LogProbMismatch: They differ; no weight has changed then.
        """
        deviation, limit = sums["max_ratio_deviation"], self.settings.max_ratio_deviation
        if self._steps_taken or limit is None or deviation <= limit:
            return
        raise LogProbMismatch(
            f"before the first gradient step of iteration {self._iteration} a token's probability "
            f"differs by a factor of 1 +- {deviation:.2g} between sampler and learner "
            f"(at most {limit} is allowed): weights, masks or positions are not the same; for "
            "bfloat16, whose rounding does that, give a larger max_ratio_deviation"
        )

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
