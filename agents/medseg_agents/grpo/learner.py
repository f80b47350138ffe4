"""The learner: whole groups in every gradient step, gradients accumulated over small batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from medseg_agents.arrays.optimisers import parameter_groups, rate_over_run
from medseg_agents.grpo.connectors import GROUP, ROWS, GroupAdvantages, TurnGAE, TurnsToTokens
from medseg_agents.grpo.metrics import learner_metrics
from medseg_agents.grpo.objective import (
    OverLearners,
    StepTotals,
    chat_loss,
    mismatch_bound,
    require_agreement,
    token_weights,
)
from medseg_agents.grpo.objective.old_log_probs import keep_old
from medseg_agents.grpo.rollout.collate import collate
from medseg_agents.grpo.rollout.device_memory import log_peak_memory
from medseg_agents.grpo.rollout.length_batches import length_batches
from medseg_agents.grpo.rollout.token_rows import TokenRow
from medseg_agents.grpo.settings import ChatSettings
from medseg_agents.grpo.sharding.agreement import pad_to_all, together
from medseg_agents.grpo.shared_prompts import SharedPrompts, prompt_slices
from medseg_agents.runs.divergence import check_gradients

LOWER = "lr or max_grad_norm"
"""Options to lower when a gradient is not finite."""

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
    _keeps_old = False  # old log-probabilities of rows, for further gradient steps

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
        self._over_learners = OverLearners(config.num_learners, self._device)
        self._learner_connector.append(
            TurnsToTokens(settings.mask_truncated_completions, config.kind.image_keys)
        )
        if settings.advantage == "gae":
            self._learner_connector.append(
                TurnGAE(
                    settings, config.gamma, settings.micro_batch, self._device, self._over_learners
                )
            )
        else:
            self._learner_connector.append(GroupAdvantages(settings, self._over_learners))
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
        """Log memory alone: RLlib's own schedule would set the rate a second time."""
        log_peak_memory(self.metrics, (DEFAULT_MODULE_ID, "memory/learner_peak"))

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
        steps = num_epochs * self.settings.minibatches
        self._keeps_old = steps > 1 and self.settings.tis_cap is not None
        begun = False
        for _ in range(num_epochs):
            order = generator.permutation(len(names)) if num_epochs > 1 else range(len(names))
            for minibatch in np.array_split(np.asarray(order), self.settings.minibatches):
                chosen = {names[i] for i in minibatch}
                taken = [row for row in rows if groups[row.episode] in chosen]
                if self._keeps_old and not begun and self.settings.minibatches > 1:
                    later = [row for row in rows if groups[row.episode] not in chosen]
                    self._record_old(later)
                begun = True
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
        totals: dict[str, torch.Tensor] = {}
        loss = torch.zeros(())
        for micro_batch, prompts, extra, counts, last in self._passes(rows):
            with self._without_sync(not last):
                loss = loss + self._accumulate(micro_batch, weights, totals, prompts, extra, counts)
        sums = {name: float(value) for name, value in totals.items()}
        where = f"iteration {self._iteration}, gradient step {self._steps_taken}"
        own = [p.grad for p in self._params.values() if p.grad is not None]
        check_gradients(own, where, LOWER, self.config.num_learners > 1)
        with together(self._device):
            self._check(sums)
        gradients = {name: p.grad for name, p in self._params.items() if p.grad is not None}
        self.apply_gradients(self.postprocess_gradients(gradients))
        for name, value in learner_metrics(sums, self._steps_taken == 0).items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        tokens = sum(len(row.tokens) for row in rows)
        self.metrics.log_value((DEFAULT_MODULE_ID, "learned_tokens"), tokens, reduce="sum")
        self._steps_taken += 1
        return {}, {DEFAULT_MODULE_ID: loss}, {}

    def _passes(
        self,
        rows: list[TokenRow],
        learns: bool = True,
    ) -> Iterator[tuple[Sequence[TokenRow], SharedPrompts | None, dict[str, Any], bool, bool]]:
        """Deal a step's rows into micro-batches, as many in every learner.

        Args:
            rows: Of the step.
            learns: Prompts are read with gradients in the last pass that shares them.

        Yields:
            Rows, the prompts that they may share, what else the module is given, whether the rows
            count or only keep another learner company, and whether they are the last ones.
        """
        size = self.settings.micro_batch
        slices = pad_to_all(self._slices(rows), self._device)
        for number, (part, own) in enumerate(slices):
            parts = [part[cut] for cut in length_batches([len(r.tokens) for r in part], size)]
            micro_batches = pad_to_all(parts, self._device)
            prompts, shared = self._prompts(part, len(micro_batches) > 1 or not learns)
            for index, (micro_batch, counts) in enumerate(micro_batches):
                last = index == len(micro_batches) - 1
                extra = dict(shared)
                if prompts and last and learns:
                    extra["prompts"] = prompts.last_pass()
                elif prompts:
                    extra["prompt_layers"] = prompts.leaves
                yield (
                    micro_batch,
                    prompts,
                    extra,
                    own and counts,
                    last and number == len(slices) - 1,
                )

    def _slices(self, rows: Sequence[TokenRow]) -> Sequence[Sequence[TokenRow]]:
        """Deal rows into parts whose prompts are read at once."""
        if not self.chat_module.shares_prompts:
            return [rows]
        return prompt_slices(rows, self.settings.micro_batch)

    @torch.no_grad()
    def _record_old(self, rows: list[TokenRow]) -> None:
        """Compute and keep log-probabilities with the weights as they are.

        Args:
            rows: That are learned from after another gradient step.
        """
        ordered = sorted(rows, key=lambda row: len(row.tokens))
        for micro_batch, prompts, extra, counts, _ in self._passes(ordered, learns=False):
            tensors = self._tensors(micro_batch, None, prompts)
            tensors |= {**extra, "log_probs_only": True}
            out = self.module.forward_train({DEFAULT_MODULE_ID: tensors})
            if counts:
                keep_old(micro_batch, out[DEFAULT_MODULE_ID]["log_probs"])

    def _prompts(
        self, rows: Sequence[TokenRow], several: bool
    ) -> tuple[SharedPrompts | None, dict[str, Any]]:
        """Shared first prompts of a slice's rows, and the reference's keys and values of them."""
        module = self.chat_module
        if not module.shares_prompts:
            return None, {}
        image = module.base.config.image_token_id
        with together(self._device):
            prompts = SharedPrompts(rows, module.processor, image, self._device)
        if not self._all_share(bool(prompts)):
            return None, {}
        self._match(prompts.tensors)
        shared: dict[str, Any] = {}
        with torch.no_grad():
            if several:
                prompts.collect(self._read_prompts(prompts.tensors))
            if self.settings.beta:
                shared["reference_layers"] = self._read_prompts(prompts.tensors, reference=True)
        return prompts, shared

    def _read_prompts(self, tensors: dict[str, Any], reference: bool = False) -> Any:
        return self.chat_module.read_prompts(tensors, reference)

    def _all_share(self, shares: bool) -> bool:
        """Return whether prompts are shared; sharded learners do so together."""
        return shares

    def _match(self, tensors: dict[str, Any]) -> None:
        """Make this learner's pass one of the same calls as the others'; for sharded learners."""

    def _accumulate(
        self,
        rows: Sequence[TokenRow],
        weights: dict[int, float],
        totals: dict[str, torch.Tensor],
        prompts: SharedPrompts | None,
        extra: dict[str, Any],
        counts: bool = True,
    ) -> torch.Tensor:
        """Add the gradients of some rows to the parameters, and their sums to `totals`.

        Rows that do not count are computed because another learner has more; they teach nothing.

        Returns:
            Their part of the loss, (), on the CPU.
        """
        tensors = self._tensors(rows, weights, prompts) | extra
        # Values that know nothing yet shall not move the model either.
        tensors["value_only"] = self._iteration < self.settings.critic_warmup
        out = self.module.forward_train({DEFAULT_MODULE_ID: tensors})
        losses = self.compute_losses(fwd_out=out, batch={DEFAULT_MODULE_ID: tensors})
        loss: torch.Tensor = losses[DEFAULT_MODULE_ID]
        if not counts:
            loss = loss * 0
        value_of_loss = loss.detach().cpu()
        if self._keeps_old:
            keep_old(rows, out[DEFAULT_MODULE_ID]["log_probs"])
        layers = out[DEFAULT_MODULE_ID].get("prompt_layers")
        also, gradients = prompts.carried(layers) if prompts and layers else ([], [])
        torch.autograd.backward([loss, *also], [None, *gradients])
        for name, value in (self._sums if counts else {}).items():
            before = totals.get(name)
            if before is None:
                totals[name] = value
            elif name.startswith("max_"):
                totals[name] = torch.maximum(before, value)
            else:
                totals[name] = before + value
        return value_of_loss

    def _tensors(
        self,
        rows: Sequence[TokenRow],
        weights: dict[int, float] | None,
        prompts: SharedPrompts | None,
    ) -> dict[str, Any]:
        """Return what the module is given of rows."""
        module = self.chat_module
        with together(self._device):
            tensors: dict[str, Any] = collate(
                rows,
                module.processor,
                module.base.config.image_token_id,
                module.shares_images,
                weights,
                self._device,
                prompts,
            )
        self._match(tensors)
        return tensors

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Compute the loss of a micro-batch, see `chat_loss`."""
        loss, self._sums = chat_loss(self.settings, batch, fwd_out, self._totals.turns)
        return loss

    def _weights(self, rows: list[TokenRow]) -> dict[int, float]:
        """Return the weight of a token of each episode in this gradient step."""
        settings = self.settings
        lengths: dict[int, int] = {}
        for row in rows:
            lengths[row.episode] = lengths.get(row.episode, 0) + int(row.completion_mask.sum())
        turns = sum(len(row.prompt_ends) for row in rows)
        totals = self._over_learners.sum([sum(lengths.values()), len(lengths), turns])
        learners = self._over_learners.count
        self._totals = StepTotals(*(total / learners for total in totals))
        weights = token_weights(
            list(lengths.values()),
            settings.loss_type,
            settings.max_completion_length * max(1, self.config.max_turns),
            self._totals,
            sum(-(-len(part) // settings.micro_batch) for part in self._slices(rows)),
        )
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
            LogProbMismatch: They differ too much; no weight has changed then.
        """
        if self._steps_taken:
            return
        lm = self.chat_module.lm
        dtypes = {lm.dtype, torch.bfloat16 if self.settings.precision == "bfloat16" else lm.dtype}
        require_agreement(sums, mismatch_bound(self.settings, dtypes), self._iteration)

    # state --------------------------------------------------------------------------------------
    def set_state(self, state: dict[str, Any]) -> None:
        """Take up a state, an earlier one too: RLlib would keep the newer weights of the two."""
        self._weights_seq_no = 0
        super().set_state(state)

    def _get_optimizer_state(self) -> dict[str, Any]:
        # As RLlib's, but tensors stay tensors: numpy has no bfloat16.
        return {
            name: {
                "module_id": self._optimizer_name_to_module[name],
                "state": optimiser.state_dict(),
            }
            for name, optimiser in self._named_optimizers.items()
        }
