"""The runner: whole groups, one episode per slot, all slots of a turn in one batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
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
from medseg_agents.grpo.connectors import GROUP, LOG_PROBS, PICTURES, PROMPT, TOKENS
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.generation import Answer, Conversation
from medseg_gym.envs.contact_sheet import contact_sheet
from medseg_gym.episodes import Episode, EpisodeSummary
from medseg_gym.policy import make_envs, play_cases


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
    still play are answered as one batch and stepped with one decoder call; slots that have ended
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
        """Spaces of one slot."""
        if self.env is None:
            return self.spaces
        spaces = self.env.single_observation_space, self.env.single_action_space
        return {
            name: spaces for name in (INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID)
        }

    def sample(
        self, *, groups: Sequence[Group] | None = None, **kwargs: Any
    ) -> list[SingleAgentEpisode]:
        """Play groups.

        Args:
            groups: Which; all their episodes are returned, in order.
            **kwargs: RLlib's ways to ask for steps or episodes, which would cut groups.

        Raises:
            ValueError: Without `groups`.
        """
        if groups is None:
            raise ValueError("ChatEnvRunner.sample needs groups=[...]: it plays whole groups alone")
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        size = self.config.settings.group_size
        per_wave = max(1, self.num_envs // size)
        self._spent = {"generation": 0.0, "segmentation": 0.0}
        self._figures: list[dict[str, float]] = []
        counters = self.env.engine.cache.counters
        encoded = counters.encodes
        began = time.perf_counter()
        found: list[SingleAgentEpisode] = []
        with self.metrics.log_time(SAMPLE_TIMER):
            for start in range(0, len(groups), per_wave):
                found += self._wave(groups[start : start + per_wave])
        self._log(found, time.perf_counter() - began)
        self.metrics.log_value("encodes", counters.encodes - encoded, reduce="sum")
        return found

    def _wave(self, groups: Sequence[Group]) -> list[SingleAgentEpisode]:
        settings, seed = self.config.settings, self.config.seed or 0
        members = [(group, k) for group in groups for k in range(settings.group_size)]
        keys = [group.key for group, _ in members]
        spare = self.num_envs - len(keys)
        before = time.perf_counter()
        observations, _ = self.env.reset(options={"case": keys + keys[:1] * spare})
        self._spent["segmentation"] += time.perf_counter() - before
        talks = [
            Conversation(np.random.default_rng([seed, group.number, k])) for group, k in members
        ]
        episodes = []
        first: dict[int, dict[str, Any]] = {}
        for slot, (group, _) in enumerate(members):
            # Slots of a group begin with the same picture: one array for all of them.
            shown = first.setdefault(group.number, _row(observations, slot))
            episode = SingleAgentEpisode()
            episode.add_env_reset(observation=shown)
            episode.custom_data[GROUP] = group.number
            episodes.append(episode)
            talks[slot].show(shown["text"], shown["image"])
        running = list(range(len(members)))
        engine = self.module.engine(self.env.system_messages)
        while running:
            before = time.perf_counter()
            with self.module.autocast():
                said = engine.answer([talks[slot] for slot in running])
            between = time.perf_counter()
            actions: list[str | None] = [None] * self.num_envs
            for slot, answer in zip(running, said, strict=True):
                actions[slot] = answer.text
            observations, rewards, ended, cut, _ = self.env.step(actions)
            self._spent["generation"] += between - before
            self._spent["segmentation"] += time.perf_counter() - between
            for slot, answer in zip(running, said, strict=True):
                shown = _row(observations, slot)
                episodes[slot].add_env_step(
                    observation=shown,
                    action=answer.text,
                    reward=float(rewards[slot]),
                    terminated=bool(ended[slot]),
                    truncated=bool(cut[slot]),
                    extra_model_outputs=self._kept(answer),
                )
                talks[slot].show(shown["text"], shown["image"])
            running = [slot for slot in running if not (ended[slot] or cut[slot])]
        for slot, episode in enumerate(episodes):
            self._figures.append(figures_of(self.env.engine.episode(slot), episode))
        return episodes

    def _kept(self, answer: Answer) -> dict[str, Any]:
        return {
            PROMPT: answer.prompt,
            TOKENS: answer.tokens,
            LOG_PROBS: answer.log_probs,
            PICTURES: answer.pictures,
            WEIGHTS_SEQ_NO: self._weights_seq_no,
        }

    def _log(self, episodes: Sequence[SingleAgentEpisode], seconds: float) -> None:
        self._increase_sampled_metrics(sum(map(len, episodes)), len(episodes))
        means = {
            name: float(np.mean([figures[name] for figures in self._figures]))
            for name in self._figures[0]
        }
        for name, value in means.items():
            self.metrics.log_value(name, value, window=1)
        tokens = sum(
            len(tokens)
            for episode in episodes
            for tokens in episode.get_extra_model_outputs(TOKENS)
        )
        self.metrics.log_value("tokens", tokens, reduce="sum")
        for name, spent in self._spent.items():
            self.metrics.log_value(f"{name}_seconds", spent, reduce="sum")
        self.metrics.log_value("tokens_per_second", tokens / seconds, window=1)

    # evaluation ---------------------------------------------------------------------------------
    def validate(
        self, keys: Sequence[str], split: str = "val", temperature: float = 0.0, drawn: int = 0
    ) -> tuple[list[CaseRecord], bytes]:
        """Play cases of another split with the weights as they are.

        Args:
            keys: Of the cases.
            split: Where they are.
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
        """Not the module: the learner's is kept, and given to all runners after restoring."""
        return [one for one in super().get_checkpointable_components() if one[1] is not self.module]

    def get_metrics(self) -> Any:
        """What was logged since the last call."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Close the environments."""
        if self.env is not None:
            self.env.close()


def figures_of(episode: Episode, sampled: SingleAgentEpisode) -> dict[str, float]:
    """What an episode adds to the metrics, under the names of `EpisodeSummary`."""
    summary = EpisodeSummary.of(episode, rewards=[float(r) for r in sampled.get_rewards()])
    names = ("dice", "turns", "valid_rate", "stopped", "return_regret")
    return {
        "episode_return_mean": summary.episode_return,  # RLlib's own name
        **{name: float(getattr(summary, name)) for name in names},
    }


def _row(observations: Any, slot: int) -> dict[str, Any]:
    return {"text": observations["text"][slot], "image": observations["image"][slot].copy()}
