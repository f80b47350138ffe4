"""GRPO and turn-level PPO for policies that chat: one algorithm, two configurations."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# Ray reads these when it is imported; see medseg_agents.arrays.rllib.ppo.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from medseg_agents.grpo.case_choice import CaseChoice, Group, has_spread, whole_groups
from medseg_agents.grpo.connectors import DICE
from medseg_agents.grpo.errors import LostGroups
from medseg_agents.grpo.learner import ITERATION, ChatLearner
from medseg_agents.grpo.module import HFChatModule
from medseg_agents.grpo.rollout.runner import ChatEnvRunner
from medseg_agents.grpo.settings import ChatSettings
from medseg_agents.grpo.sharding.checkpoint import StateInParts
from medseg_agents.grpo.sharding.group import ChatLearnerGroup
from medseg_agents.grpo.sharding.learner import ShardedChatLearner
from medseg_agents.grpo.sharding.module import ShardedChatModule
from medseg_agents.grpo.sharding.placement import check_cluster
from medseg_agents.runs.algorithm_state import load_state, save_state
from medseg_agents.runs.gpus import GpuRequest, count_gpus, learner_gpus
from medseg_agents.runs.runner_errors import raise_failures
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, ChatKind, chat_kind
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.errors import MedSegError

ENV = f"medseg_gym:{IMAGE_CHAT.env_id}"

_CHOICE = "case_choice"


class ChatConfig(AlgorithmConfig):
    """Base of `GRPOConfig` and `ChatPPOConfig`.

    `chat(...)` sets the fields of `ChatSettings`; the rest is set with RLlib's own
    methods: `environment(env_config=...)` takes arguments of `MedSegChat-v0` (or of another chat
    environment, with `env="medseg_gym:MedSegVolumeChat-v0"`), `training(lr, gamma, grad_clip,
    num_epochs)`, `env_runners(num_env_runners, num_envs_per_env_runner)` (0
    slots: all episodes of a runner), `learners(num_learners)`, `debugging(seed)`.

    Args:
        algo_class: Of RLlib; the algorithm is always `ChatAlgorithm`.
    """

    # RLlib annotates these by their first value, None.
    env: Any
    env_runner_cls: Any
    grad_clip: Any

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or ChatAlgorithm)
        self.settings = ChatSettings()
        self.env = ENV
        self.env_runner_cls = ChatEnvRunner
        self.batch_mode = "complete_episodes"
        self.num_envs_per_env_runner = 0
        self.lr = 1e-6
        self.grad_clip = 0.3
        self.grad_clip_by = "global_norm"
        self.num_epochs = 1
        self.minibatch_size = None
        self.gamma = 1.0
        self.disable_env_checking = True
        self.add_default_connectors_to_learner_pipeline = False
        self.add_default_connectors_to_env_to_module_pipeline = False
        self.add_default_connectors_to_module_to_env_pipeline = False
        # Some parts learn nothing in some batches: a vision tower without images, say.
        self.torch_ddp_kwargs = {"find_unused_parameters": True}
        # A runner that dies takes its groups of this iteration with it, and comes back.
        self.restart_failed_env_runners = True
        self.ignore_env_runner_failures = True
        # RLlib's default, 0, keeps a learner on the CPU beside an idle GPU.
        self.num_gpus_per_learner = 1 if count_gpus()[0] else 0

    def chat(self, **settings: Any) -> ChatConfig:
        """Set fields of `ChatSettings`.

        Raises:
            MedSegError: A value out of range.
            TypeError: A field that does not exist.
        """
        self.settings = replace(self.settings, **settings)
        return self

    @property
    def kind(self) -> ChatKind:
        """The chat environment that is played."""
        return chat_kind(str(self.env).rpartition(":")[2])

    @property
    def max_turns(self) -> int:
        """Turns that an episode may have."""
        return int(self.env_config.get("max_steps", self.kind.options.max_steps))

    @property
    def episodes_per_runner(self) -> int:
        """Episodes of an iteration on the runner that plays most of them."""
        runners = max(1, self.num_env_runners)
        return -(-self.settings.groups // runners) * self.settings.num_generations

    def validate(self) -> None:
        """Check the settings against each other; see RLlib for the rest.

        Raises:
            MedSegError: Groups cannot be dealt whole, or there is no checkpoint to start from.
        """
        settings = self.settings
        if self.num_envs_per_env_runner == 0:
            self.num_envs_per_env_runner = self.episodes_per_runner
        if not settings.model:
            raise MedSegError("name the checkpoint to start from: .chat(model=FOLDER)")
        if self.num_envs_per_env_runner % settings.num_generations:
            raise MedSegError(
                f"slots of a runner ({self.num_envs_per_env_runner}) must be a multiple of "
                f"num_generations ({settings.num_generations}): groups stay whole"
            )
        learners = max(1, self.num_learners)
        if settings.groups % (learners * settings.minibatches):
            raise MedSegError(
                f"groups ({settings.groups}) must be a multiple of learners times minibatches "
                f"({learners} * {settings.minibatches}): every learner gets as many whole groups"
            )
        if settings.shard and learners < 2:
            raise MedSegError(
                f"shard divides the model among learners, and there is {learners}: ask for at "
                "least two (--learners 2), or leave out --shard"
            )
        self._check_device()
        super().validate()

    def _check_device(self) -> None:
        """Refuse a learner on the CPU beside GPUs."""
        device = str(self.env_config.get("device", "auto"))
        request = GpuRequest(
            self.num_learners, per_learner=self.num_gpus_per_learner, device=device
        )
        learner_gpus(request, *count_gpus())

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return `HFChatModule` with these settings, or its kind that can be sharded."""
        return RLModuleSpec(
            module_class=ShardedChatModule if self.settings.shard else HFChatModule,
            model_config={
                "settings": asdict(self.settings),
                "values": self.settings.advantage == "gae",
                "seed": self.seed or 0,
            },
        )

    def get_default_learner_class(self) -> type[ChatLearner]:
        """Return `ChatLearner`, or its kind that shards."""
        return ShardedChatLearner if self.settings.shard else ChatLearner

    def build_learner_group(
        self,
        *,
        env: Any = None,
        spaces: Any = None,
        rl_module_spec: Any = None,
        placement_group: Any = None,
    ) -> ChatLearnerGroup:
        """Build a `ChatLearnerGroup`; see RLlib for the arguments."""
        spec = rl_module_spec or self.get_multi_rl_module_spec(env=env, spaces=spaces)
        return ChatLearnerGroup(
            config=self.copy(), module_spec=spec, placement_group=placement_group
        )


class GRPOConfig(ChatConfig):
    """Group-relative policy optimisation (Shao et al. 2024) of whole conversations.

    Example:
        >>> from medseg_agents.grpo import GRPOConfig
        >>> config = (
        ...     GRPOConfig()
        ...     .environment(env_config={"cases": "phantoms", "image_size": 96, "texts": "terse"})
        ...     .training(lr=1e-4)
        ...     .chat(model="runs/tiny/sft/model", groups=16, num_generations=8)
        ... )
        >>> result = config.build_algo().train()  # doctest: +SKIP
    """


class ChatPPOConfig(ChatConfig):
    """PPO (Schulman et al. 2017) whose advantages belong to turns, from a value head.

    Args:
        algo_class: Of RLlib.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class)
        self.chat(advantage="gae", num_generations=1, groups=128, minibatches=4)
        self.num_epochs = 4  # a value head that begins with zeros needs many steps


class ChatAlgorithm(Algorithm):
    """Plays whole groups, learns from whole groups, gives every runner the new weights."""

    # RLlib's own annotations allow for None wherever something is made in setup.
    config: Any
    env_runner_group: Any
    learner_group: Any
    metrics: Any

    @classmethod
    def get_default_config(cls) -> ChatConfig:
        """Return that of GRPO."""
        return GRPOConfig()

    def setup(self, config: Any) -> None:
        """Build RLlib's parts; a local runner and a local learner share one set of weights."""
        check_cluster(config)
        super().setup(config)
        options = self.config.env_config
        kind = self.config.kind
        cases = options.get("cases", kind.options.cases)
        source = kind.load(cases, options.get("split", kind.options.split))
        settings = self.config.settings
        self._choice = CaseChoice(
            source.keys, self.config.seed or 0, settings.curriculum, settings.success_dice
        )
        self._share_weights()

    def _share_weights(self) -> None:
        self._given = False  # remote runners have the newest weights
        self._own: Any = None
        self._shared = self.config.num_env_runners == 0 and self.config.num_learners == 0
        if self._shared:
            learner = self.learner_group._learner
            self.env_runner.module = learner.module[DEFAULT_MODULE_ID]

    def training_step(self) -> None:
        """Play and learn one iteration."""
        if not self._given:  # after a start or a restore, whichever way it came about
            self._give_weights()
        learners = max(1, self.config.num_learners)
        began = time.perf_counter()
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            whole = self._sampled(learners)
        self.metrics.log_value("playing_seconds", time.perf_counter() - began, reduce="sum")
        began = time.perf_counter()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self._learn(whole, learners)
        # Beside RLlib's timer, which is smoothed over iterations.
        self.metrics.log_value("update_seconds", time.perf_counter() - began, reduce="sum")
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self._give_weights()

    def _sampled(self, learners: int) -> list[list[Any]]:
        """Play an iteration's groups, those without spread again where the settings ask for it.

        Raises:
            LostGroups: Too few came back.
        """
        settings, choice = self.config.settings, self._choice
        rounds = settings.max_num_gen_batches if settings.dynamic_sampling else 1
        kept: list[list[Any]] = []
        flat: list[list[Any]] = []
        played, lost = 0, 0
        for number in range(rounds):
            groups = choice.deal(settings.groups - len(kept))
            keys = {group.number: group.key for group in groups}
            whole = whole_groups(self._play(groups, number == 0), settings.num_generations)
            played, lost = played + len(groups), lost + len(groups) - len(whole)
            for group, members in whole.items():
                choice.observe(keys[group], [one.custom_data[DICE] for one in members])
                spread = not settings.dynamic_sampling or has_spread(members)
                (kept if spread else flat).append(members)
            if len(kept) >= settings.groups:
                break
        filled = flat[: settings.groups - len(kept)]
        counts = {"resampled": played - settings.groups, "without_spread": len(filled)}
        if settings.dynamic_sampling:
            for name, count in counts.items():
                self.metrics.log_value((ENV_RUNNER_RESULTS, f"groups/{name}"), count, reduce="sum")
        for name, value in choice.metrics().items():
            self.metrics.log_value((ENV_RUNNER_RESULTS, name), value, window=1)
        whole_iteration = [*kept, *filled]
        # After a runner died: as many for every learner, so that they take their steps together.
        step = learners * settings.minibatches
        dealt = whole_iteration[: len(whole_iteration) // step * step]
        if not dealt:
            raise LostGroups(
                f"iteration {self.iteration}: of {played} groups {played - lost} came back, "
                f"and {step} are needed; see the runners' errors above"
            )
        self.metrics.log_value(
            "groups_lost", lost + len(whole_iteration) - len(dealt), reduce="sum"
        )
        return dealt

    def _give_weights(self) -> None:
        self._given = True
        if self._shared:  # the module has them; an engine in another process has not
            self.env_runner.weights_changed()
        else:
            with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                self.env_runner_group.sync_weights(
                    from_worker_or_learner_group=self.learner_group, inference_only=True
                )

    def save_to_path(self, path: Any = None, **options: Any) -> str:
        """Write a checkpoint without pickles, see `StateInParts`.

        Args:
            path: Of its folder.
            **options: RLlib's own, which say how it would write.
        """
        state = StateInParts(self, Path(path))
        save_state(state, Path(path))
        state.remove_unused()
        return str(path)

    def restore_from_path(self, path: Any, **options: Any) -> None:
        """Take up a checkpoint of `save_to_path`; nothing in it is ever run.

        Args:
            path: Of its folder.
            **options: RLlib's own.
        """
        load_state(StateInParts(self, Path(path)), Path(path))

    def get_state(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return what a checkpoint keeps: RLlib's state and that of the choice of cases."""
        state: dict[str, Any] = super().get_state(*arguments, **options)
        return {**state, _CHOICE: self._choice.state()}

    def set_state(self, state: Any) -> None:
        """Take up a saved state; runners get its weights before they play again."""
        state = dict(state)
        choice = state.pop(_CHOICE, None)
        super().set_state(state)
        if choice is not None:
            self._choice.restore(choice)
        self._given = False

    def own_module(self) -> HFChatModule:
        """Return a module with the learners' weights: the learner's own, or a copy of it here."""
        own: HFChatModule
        if self.config.num_learners == 0:
            own = self.learner_group._learner.chat_module
            return own
        if self._own is None:
            spec = self.config.get_default_rl_module_spec()
            spec.observation_space, spec.action_space = self.spaces_of_one_slot()
            spec.inference_only = True
            self._own = spec.build()
        own = self._own
        own.set_state(self.learner_group.get_weights()[DEFAULT_MODULE_ID])
        return own

    def spaces_of_one_slot(self) -> tuple[Any, Any]:
        """Return the spaces of observations and actions."""
        runner = self.env_runner
        spaces: tuple[Any, Any]
        if runner is not None and runner.env is not None:
            spaces = runner.get_spaces()[DEFAULT_MODULE_ID]
            return spaces
        spaces = self.env_runner_group.foreach_env_runner(
            lambda runner: runner.get_spaces()[DEFAULT_MODULE_ID], local_env_runner=False
        )[0]
        return spaces

    def validate_cases(
        self, keys: Sequence[str], split: str = "val", temperature: float = 0.0, drawn: int = 0
    ) -> tuple[list[EpisodeSummary], bytes]:
        """Play cases of another split, dealt to all runners; see `ChatEnvRunner.validate`."""
        if not self._given:
            self._give_weights()
        if self.env_runner_group.num_remote_workers() == 0:
            alone: tuple[list[EpisodeSummary], bytes] = self.env_runner.validate(
                keys, split, temperature, drawn
            )
            return alone
        workers = self.env_runner_group.healthy_worker_ids()
        dealt = [list(keys[i :: len(workers)]) for i in range(len(workers))]
        results = self.env_runner_group.foreach_env_runner(
            [
                lambda runner, share=share, first=number == 0: runner.validate(
                    share, split, temperature, drawn if first else 0
                )
                for number, share in enumerate(dealt)
                if share
            ],
            local_env_runner=False,
            remote_worker_ids=[w for w, share in zip(workers, dealt, strict=True) if share],
        )
        raise_failures([self.env_runner_group])
        if sum(len(summaries) for summaries, _ in results) < len(keys):
            raise LostGroups("a runner died while validation cases were played; see its error")
        return [one for summaries, _ in results for one in summaries], results[0][1]

    def _play(self, groups: Sequence[Group], first: bool = True) -> list[Any]:
        if self.env_runner_group.num_remote_workers() == 0:
            episodes = self.env_runner.sample(groups=groups, first=first)
            results = [(episodes, self.env_runner.get_metrics())]
        else:
            workers = self.env_runner_group.healthy_worker_ids()
            dealt = [groups[i :: len(workers)] for i in range(len(workers))]
            results = self.env_runner_group.foreach_env_runner(
                [
                    lambda runner, share=share: (
                        runner.sample(groups=share, first=first),
                        runner.get_metrics(),
                    )
                    for share in dealt
                    if share
                ],
                local_env_runner=False,
                remote_worker_ids=[w for w, share in zip(workers, dealt, strict=True) if share],
            )
            raise_failures([self.env_runner_group])
        self.metrics.aggregate([metrics for _, metrics in results], key=ENV_RUNNER_RESULTS)
        return [episode for episodes, _ in results for episode in episodes]

    def _learn(self, groups: Sequence[list[Any]], learners: int) -> list[Any]:
        given: dict[str, Any] = {
            "num_epochs": self.config.num_epochs,
            "timesteps": {ITERATION: self.iteration},
        }
        results: list[Any]
        if learners == 1:
            results = self.learner_group.update(episodes=_flat(groups), **given)
            return results
        # By reference: RLlib deals a plain list of episodes by length and so through groups.
        shares = [ray.put(_flat(groups[i::learners])) for i in range(learners)]
        results = self.learner_group.update(episodes_refs=shares, **given)
        return results


def _flat(groups: Sequence[list[Any]]) -> list[Any]:
    return [episode for members in groups for episode in members]
