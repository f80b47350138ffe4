"""The group of learners, which fails as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.rllib.core import COMPONENT_LEARNER
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.training_data import TrainingData

from medseg_agents.grpo.errors import OtherLearnerFailed

GRACE = 10.0
"""Seconds in which the other learners may end by themselves once one has failed."""


class ChatLearnerGroup(LearnerGroup):
    """Learners that are called together.

    RLlib waits for every learner, however one of them ended; but those that wait for a failed one
    inside a collective call end with the communication's timeout alone, half an hour later. Here
    they are stopped, and the error is that of the learner that failed. After an error that all
    learners have raised together the group is as it was; after another one it is of no use, and a
    run goes on from its checkpoint.
    """

    # RLlib's own annotations: of every configuration, and None where the learner is local.
    config: Any
    _workers: Any

    def update(self, *, timesteps: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Take gradient steps; see RLlib for the arguments."""
        if self.is_local:
            local: list[dict[str, Any]] = super().update(timesteps=timesteps, **kwargs)
            return local
        given = {name: kwargs.pop(name) for name in ("episodes", "episodes_refs") if name in kwargs}
        data = TrainingData(**given)
        data.validate()
        shards = data.shard(
            num_shards=len(self), len_lookback_buffer=self.config.episode_lookback_horizon, **kwargs
        )
        return self.ask_all(
            [
                actor.update.remote(
                    training_data=shard, timesteps=timesteps, **shard_options, **kwargs
                )
                for actor, (shard, shard_options) in zip(self._workers, shards, strict=True)
            ]
        )

    def call(self, function: Any, *args: Any) -> list[Any]:
        """Call a function with every learner and these arguments; see `ask_all`.

        Args:
            function: Of a learner.
            *args: Further arguments.
        """
        if self.is_local:
            return [function(self._learner, *args)]
        return self.ask_all([actor.apply.remote(function, *args) for actor in self._workers])

    def ask_all(self, references: Sequence[Any]) -> list[Any]:
        """Return what all learners answer.

        Args:
            references: One of each learner, in order.

        Raises:
            Exception: That of the learner that failed.
        """
        waiting, results = list(references), {}
        errors: list[Exception] = []
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=GRACE if errors else None)
            if not done:
                for actor, reference in zip(self._workers, references, strict=True):
                    if reference in waiting:
                        ray.kill(actor)
                break
            for reference in done:
                try:
                    results[reference] = ray.get(reference)
                except Exception as error:
                    errors.append(error)
        if errors:
            raise min(errors, key=_follows)
        return [results[reference] for reference in references]

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the first learner's state; all are asked, for whole weights come from all."""
        if self.is_local or not self._check_component(
            COMPONENT_LEARNER, components, not_components
        ):
            state: dict[str, Any] = super().get_state(
                components, not_components=not_components, **kwargs
            )
            return state
        own = self._get_subcomponents(COMPONENT_LEARNER, components)
        aside = self._get_subcomponents(COMPONENT_LEARNER, not_components)
        if not self.config.settings.shard:
            first = self._workers[0].get_state.remote(own, not_components=aside, **kwargs)
            return {COMPONENT_LEARNER: ray.get(first)}
        states = self.ask_all(
            [actor.get_state.remote(own, not_components=aside, **kwargs) for actor in self._workers]
        )
        return {COMPONENT_LEARNER: states[0]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Give all learners a state; an error is raised, where RLlib only marks the learner."""
        if COMPONENT_LEARNER not in state:
            return
        if self.is_local:
            super().set_state(state)
            return
        given = ray.put(state[COMPONENT_LEARNER])
        self.ask_all([actor.set_state.remote(given) for actor in self._workers])


def _follows(error: Exception) -> int:
    """Order errors: causes first, then dead processes, broken connections, what only followed."""
    if isinstance(error, OtherLearnerFailed):
        return 3
    if isinstance(error, ray.exceptions.RayActorError):
        return 1
    text = str(error)
    return 2 if any(words in text for words in ("gloo", "NCCL", "Connection closed")) else 0
