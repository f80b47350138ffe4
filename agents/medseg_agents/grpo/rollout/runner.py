"""The runner: whole groups, one episode per slot, all slots of a turn in one batch."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import SAMPLE_TIMER, WEIGHTS_SEQ_NO

from medseg_agents.evaluation.evaluate import CaseRecord, record_of
from medseg_agents.grpo.connectors import GROUP, LOG_PROBS, NUM_IMAGES, PROMPT, TOKENS
from medseg_agents.grpo.rollout.device_memory import log_peak_memory
from medseg_agents.grpo.rollout.samples import SampledConversation
from medseg_agents.grpo.rollout.statistics import EpisodeStatistics, play_metrics
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.engine import Completion, Conversation
from medseg_gym.envs.contact_sheet import contact_sheet
from medseg_gym.episodes import Episode
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.trajectories.recording.step_log import step_record

SAMPLES = 16
"""Episodes of an iteration that a runner keeps as conversations for the log."""


@dataclass(frozen=True)
class Group:
    """Episodes of one case.

    Args:
        number: Of the group in the whole run; seeds its draws.
        key: Of the case.
    """

    number: int
    key: str


class ChatEnvRunner(SingleAgentEnvRunner):
    """Plays groups of episodes through `MedSegChat-v0`; a turn is a step.

    Every slot plays exactly one episode, so that no length is favoured. Each turn the slots that
    still play generate as one batch and stepped with one decoder call; slots that have ended
    sit out. What an episode draws depends on the seed, its group and its number in it alone.
    """

    config: Any  # RLlib's annotations are those of every algorithm
    env: Any
    module: Any

    def make_env(self) -> None:
        """Make the native batch, which never resets by itself."""
        options = dict(self.config.env_config)
        self.num_envs = self.config.num_envs_per_env_runner
        self.env = make_envs(self.num_envs, "MedSegChat-v0", **options)

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
        self, *, groups: Sequence[Group] | None = None, **kwargs: Any
    ) -> list[SingleAgentEpisode]:
        """Play groups.

        Args:
            groups: All their episodes are returned, in order.
            **kwargs: RLlib's ways to ask for steps or episodes, which would cut groups.

        Raises:
            ValueError: Without `groups`.
        """
        if groups is None:
            raise ValueError("ChatEnvRunner.sample needs groups=[...]: it plays whole groups alone")
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        size = self.config.settings.num_generations
        per_wave = max(1, self.num_envs // size)
        self._spent = {"generation": 0.0, "segmentation": 0.0}
        self._statistics: list[EpisodeStatistics] = []
        self._samples: list[SampledConversation] = []
        counters = self.env.engine.cache.counters
        encoded = counters.encodes
        began = time.perf_counter()
        episodes: list[SingleAgentEpisode] = []
        with self.metrics.log_time(SAMPLE_TIMER):
            for start in range(0, len(groups), per_wave):
                episodes += self._wave(groups[start : start + per_wave])
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
        conversations = [
            Conversation(np.random.default_rng([seed, group.number, k])) for group, k in members
        ]
        episodes = []
        first: dict[int, dict[str, Any]] = {}
        for slot, (group, _) in enumerate(members):
            # Slots of a group begin with the same image: one array for all of them.
            shown = first.setdefault(group.number, _row(observations, slot))
            episode = SingleAgentEpisode()
            episode.add_env_reset(observation=shown)
            episode.custom_data[GROUP] = group.number
            episodes.append(episode)
            conversations[slot].show(shown["text"], shown["image"])
        running = list(range(len(members)))
        terms: list[Counter[str]] = [Counter() for _ in members]
        drawn: list[list[Completion]] = [[] for _ in members]
        engine = self.module.engine(self.env.system_messages)
        while running:
            before = time.perf_counter()
            with self.module.autocast():
                completions = engine.generate([conversations[slot] for slot in running])
            between = time.perf_counter()
            actions: list[str | None] = [None] * self.num_envs
            for slot, completion in zip(running, completions, strict=True):
                actions[slot] = completion.text
                drawn[slot].append(completion)
            observations, rewards, ended, cut, infos = self.env.step(actions)
            self._spent["generation"] += between - before
            self._spent["segmentation"] += time.perf_counter() - between
            for slot, completion in zip(running, completions, strict=True):
                shown = _row(observations, slot)
                episodes[slot].add_env_step(
                    observation=shown,
                    action=completion.text,
                    reward=float(rewards[slot]),
                    terminated=bool(ended[slot]),
                    truncated=bool(cut[slot]),
                    extra_model_outputs=self._kept(completion),
                )
                conversations[slot].show(shown["text"], shown["image"])
                terms[slot].update(self._terms(slot, float(rewards[slot]), infos))
            running = [slot for slot in running if not (ended[slot] or cut[slot])]
        for slot, episode in enumerate(episodes):
            paid = [float(reward) for reward in episode.get_rewards()]
            number, played = members[slot][0].number, self.env.engine.episode(slot)
            self._statistics.append(
                EpisodeStatistics.of(number, played, paid, terms[slot], drawn[slot])
            )
            if len(self._samples) < SAMPLES:
                self._samples.append(SampledConversation.of(number, played, episode, drawn[slot]))
        return episodes

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
            WEIGHTS_SEQ_NO: self._weights_seq_no,
        }

    def _log(self, episodes: Sequence[SingleAgentEpisode], seconds: float) -> None:
        self._increase_sampled_metrics(sum(map(len, episodes)), len(episodes))
        metrics = play_metrics(self._statistics, int(self.config.max_turns))
        for name, value in metrics.items():
            # The shortest and longest completion are those of all runners, the rest is a mean.
            part = name.rpartition("/")[2]
            if part in ("min", "max"):
                self.metrics.log_value(name, value, reduce=part)
            else:
                self.metrics.log_value(name, value, window=1)
        tokens = sum(sum(one.lengths) for one in self._statistics)
        self.metrics.log_value("tokens", tokens, reduce="sum")
        self.metrics.log_value("episodes", len(episodes), reduce="sum")
        for name, spent in self._spent.items():
            self.metrics.log_value(f"{name}_seconds", spent, reduce="sum")
        self.metrics.log_value("tokens_per_second", tokens / seconds, window=1)
        # Runners play at the same time: an iteration takes as long as the slowest.
        self.metrics.log_value("playing_seconds", seconds, reduce="max")
        log_peak_memory(self.metrics, "memory/runner_peak")

    def newest_samples(self) -> list[SampledConversation]:
        """Return the first episodes of the newest iteration, whole groups first."""
        return self._samples

    # evaluation ---------------------------------------------------------------------------------
    def validate(
        self, keys: Sequence[str], split: str = "val", temperature: float = 0.0, drawn: int = 0
    ) -> tuple[list[CaseRecord], bytes]:
        """Play cases of another split with the weights as they are.

        Args:
            keys: Of the cases.
            split: Of the cases.
            temperature: 0 takes the likeliest tokens.
            drawn: Episodes to draw.

        Returns:
            Records, and a PNG of the first `drawn` episodes (empty for none).
        """
        options = {**self.config.env_config, "split": split}
        envs: Any = make_envs(min(len(keys), 64), "MedSegChat-v0", **options)
        over = envs.view.texts.over
        policy = ChatPolicy(self.module.engine(envs.system_messages, temperature), over)
        records: list[CaseRecord] = []
        episodes: list[tuple[str, Episode]] = []
        with self.module.autocast():
            for batch in play_cases(envs, policy, keys, self.config.seed or 0):
                records += [record_of(played, policy, envs, len(batch)) for played in batch]
                episodes += [("", one.episode) for one in batch[: drawn - len(episodes)]]
        envs.close()
        if not episodes:
            return records, b""
        with tempfile.TemporaryDirectory() as folder:
            return records, contact_sheet(episodes, Path(folder) / "sheet.png").read_bytes()

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Leave the module out: the learner's is kept, and given to all runners after restoring."""
        return [one for one in super().get_checkpointable_components() if one[1] is not self.module]

    def get_metrics(self) -> Any:
        """Return what was logged since the last call."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Close the environments."""
        if self.env is not None:
            self.env.close()


def _row(observations: Any, slot: int) -> dict[str, Any]:
    return {"text": observations["text"][slot], "image": observations["image"][slot].copy()}
