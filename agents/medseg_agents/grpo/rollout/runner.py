"""The runner: whole groups, one episode per slot, all slots of a turn in one batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import SAMPLE_TIMER, WEIGHTS_SEQ_NO

from medseg_agents.evaluation.validation import play_validation
from medseg_agents.grpo.case_choice import Group
from medseg_agents.grpo.connectors import (
    CUT,
    DICE,
    FINAL_PROMPT,
    GROUP,
    IMAGES_BEFORE,
    LOG_PROBS,
    NUM_IMAGES,
    PROMPT,
    TERMS,
    TOKENS,
)
from medseg_agents.grpo.metrics import branch_metrics
from medseg_agents.grpo.rollout.branches import BranchPoint, Trunk
from medseg_agents.grpo.rollout.device_memory import log_peak_memory
from medseg_agents.grpo.rollout.module_sampler import ModuleSampler
from medseg_agents.grpo.rollout.samples import SampledConversation
from medseg_agents.grpo.rollout.statistics import EpisodeStatistics, play_metrics
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.engine import Completion, Conversation, GenerationEngine
from medseg_agents.runs.runner_errors import TellsErrors
from medseg_gym.backbones import embedding_cache
from medseg_gym.envs.views.messages import Message
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.policy import make_envs
from medseg_gym.trajectories.recording.step_log import step_record

SAMPLES = 16
"""Episodes of an iteration that a runner keeps as conversations for the log."""


class ChatEnvRunner(TellsErrors, SingleAgentEnvRunner):
    """Plays groups of episodes through a chat environment; a turn is a step.

    Every slot plays exactly one episode, so that no length is favoured. Each turn the slots that
    still play generate as one batch and stepped with one decoder call; slots that have ended
    sit out. What an episode draws depends on the seed, its group and its number in it alone.
    Groups that branch begin where their trunk has got to (see `branches`).
    """

    config: Any  # RLlib's annotations are those of every algorithm
    env: Any
    module: Any
    _sampler: ModuleSampler | None = None

    def make_env(self) -> None:
        """Make the native batch, which never resets by itself."""
        options = dict(self.config.env_config)
        self.num_envs = self.config.num_envs_per_env_runner
        self.env = make_envs(self.num_envs, self.config.kind.env_id, **options)

    def make_module(self) -> None:
        """Make the module; one that is not the learner's holds its weights as it computes."""
        super().make_module()
        if self.module is not None and (self.config.num_env_runners or self.config.num_learners):
            self.module.round_for_playing()

    def get_spaces(self) -> dict[str, Any]:
        """Return the spaces of one slot."""
        if self.env is None:
            known: dict[str, Any] = self.spaces
            return known
        spaces = self.env.single_observation_space, self.env.single_action_space
        return {
            name: spaces for name in (INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID)
        }

    def sample(
        self, *, groups: Sequence[Group] | None = None, first: bool = True, **kwargs: Any
    ) -> list[SingleAgentEpisode]:
        """Play groups.

        Args:
            groups: All their episodes are returned, in order.
            first: Of the iteration; otherwise its metrics go on with these episodes.
            **kwargs: RLlib's ways to ask for steps or episodes, which would cut groups.

        Raises:
            ValueError: Without `groups`.
        """
        if groups is None:
            raise ValueError("ChatEnvRunner.sample needs groups=[...]: it plays whole groups alone")
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        size = self.config.settings.num_generations
        per_wave = max(1, self.num_envs // size)
        self._spent = {"generation": 0.0, "segmentation": 0.0, "weight_sync": 0.0}
        self._tokens = 0
        if first:
            self._statistics: list[EpisodeStatistics] = []
            self._samples: list[SampledConversation] = []
            self._branch_turns: list[int] = []
            self._short_trunks = 0
        counters = embedding_cache(self.env.backbone).counters
        encoded = counters.encodes
        began = time.perf_counter()
        episodes: list[SingleAgentEpisode] = []
        with self.metrics.log_time(SAMPLE_TIMER):
            for start in range(0, len(groups), per_wave):
                episodes += self._wave(groups[start : start + per_wave])
        if self._sampler is not None and self.config.settings.vllm_sleep:
            self._sampler.sleep()
        self._log(episodes, time.perf_counter() - began)
        self.metrics.log_value("encodes", counters.encodes - encoded, reduce="sum")
        return episodes

    def _wave(self, groups: Sequence[Group]) -> list[SingleAgentEpisode]:
        settings, seed = self.config.settings, self.config.seed or 0
        members = [(group, k) for group in groups for k in range(settings.num_generations)]
        keys = [group.key for group, _ in members]
        spare = self.num_envs - len(keys)
        before = time.perf_counter()
        observations, _ = self.env.reset(options={"case": keys + keys[:1] * spare})
        self._spent["segmentation"] += time.perf_counter() - before
        engine = self._engine(self.env.system_messages)
        points = self._points(groups, observations, engine)
        conversations, episodes = [], []
        terms: list[Counter[str]] = []
        for group, k in members:
            # Episodes of a group share what they begin with: one array for all of them.
            point = points[group.number]
            generator = np.random.default_rng([seed, group.number, k])
            conversations.append(point.conversation.fork(generator))
            episode = SingleAgentEpisode()
            episode.add_env_reset(observation=point.shown)
            episode.custom_data[GROUP] = group.number
            episode.custom_data[IMAGES_BEFORE] = point.before
            episodes.append(episode)
            terms.append(Counter(point.terms))
        running = list(range(len(members)))
        drawn: list[list[Completion]] = [[] for _ in members]
        while running:
            completions, stepped = self._turn(engine, {s: conversations[s] for s in running})
            observations, rewards, ended, cut, infos = stepped
            for slot, completion in zip(running, completions, strict=True):
                drawn[slot].append(completion)
                shown = self._row(observations, slot)
                paid_for = dict(self._terms(slot, float(rewards[slot]), infos))
                episodes[slot].add_env_step(
                    observation=shown,
                    action=completion.text,
                    reward=float(rewards[slot]),
                    terminated=bool(ended[slot]),
                    truncated=bool(cut[slot]),
                    extra_model_outputs={**self._kept(completion), TERMS: paid_for},
                )
                self._show(conversations[slot], shown)
                terms[slot].update(paid_for)
            running = [slot for slot in running if not (ended[slot] or cut[slot])]
        if settings.advantage == "gae":
            self._keep_final_prompts(engine, episodes, conversations)
        for slot, episode in enumerate(episodes):
            number, played = members[slot][0].number, self.env.engine.episode(slot)
            episode.custom_data[DICE] = float(played.dice)
            self._statistics.append(
                EpisodeStatistics.of(number, played, played.rewards, terms[slot], drawn[slot])
            )
            if len(self._samples) < SAMPLES:
                keys_of_images = self.config.kind.image_keys
                self._samples.append(
                    SampledConversation.of(number, played, episode, drawn[slot], keys_of_images)
                )
        return episodes

    def _turn(
        self, engine: Any, conversations: Mapping[int, Conversation]
    ) -> tuple[list[Completion], tuple[Any, ...]]:
        """Play a turn of some slots; returns their completions, and what the step gave."""
        before = time.perf_counter()
        with self.module.autocast():
            completions = engine.generate(list(conversations.values()))
        between = time.perf_counter()
        actions: list[str | None] = [None] * self.num_envs
        for slot, completion in zip(conversations, completions, strict=True):
            actions[slot] = completion.text
            self._tokens += len(completion.tokens)
        stepped = self.env.step(actions)
        self._spent["generation"] += between - before
        self._spent["segmentation"] += time.perf_counter() - between
        return completions, stepped

    def _points(
        self, groups: Sequence[Group], observations: Any, engine: Any
    ) -> dict[int, BranchPoint]:
        """Return the start of each group's episodes by its number; slots are there afterwards."""
        settings, seed = self.config.settings, self.config.seed or 0
        size, numbers = settings.num_generations, [group.number for group in groups]
        starts = []
        for index, number in enumerate(numbers):
            shown = self._row(observations, index * size)
            # No episode's generator: those are numbered from 0 to size - 1.
            conversation = Conversation(np.random.default_rng([seed, number, size]))
            self._show(conversation, shown)
            starts.append(BranchPoint(0, conversation, shown))
        if settings.branch == "start":
            return dict(zip(numbers, starts, strict=True))
        trunks = {}
        for index, start in enumerate(starts):
            drawn = np.random.default_rng([seed, numbers[index], size + 1])
            (state,) = self.env.clone_state([index * size])
            trunks[index * size] = Trunk(
                replace(start, state=state),
                drawn,
                self.config.max_turns,
                self.config.kind.image_keys,
            )
        while growing := {slot: trunk for slot, trunk in trunks.items() if trunk.grows}:
            talks = {slot: trunk.conversation() for slot, trunk in growing.items()}
            _, (observations, rewards, ended, cut, infos) = self._turn(engine, talks)
            for slot, trunk in growing.items():
                if ended[slot] or cut[slot]:
                    trunk.ended = True
                    continue
                (state,) = self.env.clone_state([slot])
                terms = self._terms(slot, float(rewards[slot]), infos)
                trunk.add(talks[slot], self._row(observations, slot), terms, state)
        points = [trunk.branch_point() for trunk in trunks.values()]
        for slot, point in zip(trunks, points, strict=True):
            self.env.restore_state(range(slot, slot + size), [point.state] * size)
        self._branch_turns += [point.turn for point in points]
        self._short_trunks += sum(trunk.ended for trunk in trunks.values())
        return dict(zip(numbers, points, strict=True))

    def _row(self, observations: Any, slot: int) -> dict[str, Any]:
        """Return what a slot was shown, as arrays of its own."""
        shown: dict[str, Any] = self.env.view.row(observations, slot)
        return shown

    def _show(self, conversation: Conversation, shown: Mapping[str, Any]) -> None:
        """Add a user turn to a conversation."""
        conversation.show(shown["text"], *(shown[key] for key in self.config.kind.image_keys))

    def _keep_final_prompts(
        self,
        engine: Any,
        episodes: Sequence[SingleAgentEpisode],
        conversations: Sequence[Conversation],
    ) -> None:
        """Keep what truncated episodes would have gone on from: its value stands for the rest."""
        truncated = [
            (episode, conversation)
            for episode, conversation in zip(episodes, conversations, strict=True)
            if episode.is_truncated and not episode.is_terminated
        ]
        if not truncated:
            return
        # Every engine says what it showed the model; the completions themselves are not used.
        with self.module.autocast():
            completions = engine.generate([conversation for _, conversation in truncated])
        for (episode, _), completion in zip(truncated, completions, strict=True):
            episode.custom_data[FINAL_PROMPT] = (completion.prompt, completion.num_images)

    def _terms(self, slot: int, reward: float, infos: Mapping[str, Any]) -> Mapping[str, float]:
        """Terms of the reward of a slot's newest step."""
        info = {
            name: values[slot]
            for name, values in infos.items()
            if not name.startswith("_") and infos[f"_{name}"][slot]
        }
        step = self.env.engine.episode(slot).steps[-1]
        return step_record(step, b"", reward, info, terminated=False).terms

    def _kept(self, completion: Completion) -> dict[str, Any]:
        return {
            PROMPT: completion.prompt,
            TOKENS: completion.tokens,
            LOG_PROBS: completion.log_probs,
            NUM_IMAGES: completion.num_images,
            CUT: completion.cut,
            WEIGHTS_SEQ_NO: self._weights_seq_no,
        }

    def _log(self, episodes: Sequence[SingleAgentEpisode], seconds: float) -> None:
        self._increase_sampled_metrics(sum(map(len, episodes)), len(episodes))
        tools = self.config.kind.tools
        metrics = play_metrics(self._statistics, int(self.config.max_turns), tools)
        if self._branch_turns:
            metrics |= branch_metrics(self._branch_turns, self._short_trunks)
        for name, value in metrics.items():
            # The shortest and longest completion are those of all runners, the rest is a mean.
            part = name.rpartition("/")[2]
            if part in ("min", "max"):
                self.metrics.log_value(name, value, reduce=part)
            else:
                self.metrics.log_value(name, value, window=1)
        tokens = self._tokens
        self.metrics.log_value("tokens", tokens, reduce="sum")
        self.metrics.log_value("episodes", len(episodes), reduce="sum")
        for name, spent in self._spent.items():
            self.metrics.log_value(f"{name}_seconds", spent, reduce="sum")
        self.metrics.log_value("tokens_per_second", tokens / seconds, window=1)
        log_peak_memory(self.metrics, "memory/runner_peak")

    def newest_samples(self) -> list[SampledConversation]:
        """Return the first episodes of the newest iteration, whole groups first."""
        return self._samples

    # evaluation ---------------------------------------------------------------------------------
    def validate(
        self, keys: Sequence[str], split: str = "val", temperature: float = 0.0, drawn: int = 0
    ) -> tuple[list[EpisodeSummary], bytes]:
        """Play cases of another split with the weights as they are.

        Args:
            keys: Of the cases.
            split: Of the cases.
            temperature: 0 takes the likeliest tokens.
            drawn: Episodes to draw.

        Returns:
            Summaries, and a PNG of the first `drawn` episodes (empty for none).
        """
        options = {**self.config.env_config, "split": split}
        kind = self.config.kind
        envs: Any = make_envs(min(len(keys), 64), kind.env_id, **options)
        engine = self._engine(envs.system_messages, temperature)
        policy = ChatPolicy(engine, envs.view.texts.over, image_keys=kind.image_keys)
        with self.module.autocast():
            validated = play_validation(envs, policy, keys, self.config.seed or 0, drawn)
        envs.close()
        return validated

    # engine and its weights ----------------------------------------------------------------------
    def _engine(self, system: list[Message], temperature: float | None = None) -> GenerationEngine:
        if self.config.settings.engine == "transformers":
            own: GenerationEngine = self.module.engine(system, temperature)
            return own
        if self._sampler is None:
            self._sampler = ModuleSampler()
        engine = self._sampler.engine(self.module, system, temperature)
        self.metrics.log_value("weight_sync_seconds", self._sampler.seconds, reduce="sum")
        return engine

    def weights_changed(self) -> None:
        """Have an engine outside this process take up the module's weights before it is asked."""
        if self._sampler is not None:
            self._sampler.stale = True

    def set_state(self, state: Any) -> None:
        """Take up a state, with the weights in it."""
        super().set_state(state)
        self.weights_changed()

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Leave the module out: the learner's is kept, and given to all runners after restoring."""
        return [one for one in super().get_checkpointable_components() if one[1] is not self.module]

    def get_metrics(self) -> Any:
        """Return what was logged since the last call."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Close the environments, and the engine where it has a process of its own."""
        if self._sampler is not None:
            self._sampler.close()
        if self.env is not None:
            self.env.close()
