"""The Policy protocol, and playing given cases with a policy."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from medseg_gym.backbones import Backbone
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.envs.views.cut_answer import CutAnswer
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.episodes import Episode, EpisodeSummary
from medseg_gym.errors import CaseFailed, PolicyError
from medseg_gym.policy_checks import check_actions
from medseg_gym.prompts import AddBox


class Policy(Protocol):
    """Acts in all slots of a vector environment at once.

    Through the array view (`MedSeg-v0`) `act` returns (n, 5) int64, through the chat view
    (`MedSegChat-v0`) a list of n str, given the newest user turns: `observations["text"]`, n str,
    and `observations["image"]`, (n, P, P, 3) uint8. A chat policy keeps as much of the conversation
    as its model is to see; it begins with `envs.system_messages`.

    Attributes:
        name: Shown in tables.
        env_id: Where the class (or the factory) has it, the environment that the policy plays:
            "MedSegVolume-v0" takes whole volumes, and commands play it on those. By default it is
            "MedSeg-v0".
        sees_truth: False: `act(observations)`, nothing else. True: `act(observations, episodes)`,
            with the Episode of every slot; every table marks such a policy as an oracle. Such a
            policy may have a method `use_engine(engine)`, and is then given the environment's
            `EpisodeEngine` before it plays, to preview prompts with.
    """

    name: str
    sees_truth: bool

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes.

        Args:
            slots: Slots that were reset.
            generators: One per slot; the only source of randomness a policy may use.
        """
        ...

    def act(self, observations: Observations, *episodes: Any) -> Any:
        """Choose actions for observations of n slots: (n, 5) int64, or a list of n str.

        What is chosen for slots that are finished or were never reset through `reset` is ignored:
        a policy whose actions are dear may answer "" there. A list may hold a `CaseFailed` in place
        of an action: the policy gives this slot's case up, and the others go on.
        """
        ...


def ask(policy: Policy, observations: Observations, episodes: Sequence[Episode]) -> Any:
    """Call `policy.act` with what it may see."""
    return policy.act(observations, episodes) if policy.sees_truth else policy.act(observations)


def give_engine(policy: Policy, envs: CoreVectorEnv) -> None:
    """Call `policy.use_engine(envs.engine)`, where a policy that sees the truth has that method."""
    use_engine = getattr(policy, "use_engine", None)
    if policy.sees_truth and use_engine is not None:
        use_engine(envs.engine)


def close_policy(policy: Policy) -> None:
    """Let go of connections and the like, where a policy has a `close`."""
    close = getattr(policy, "close", None)
    if close is not None:
        close()


def case_generator(seed: int, key: str) -> np.random.Generator:
    """The generator a policy plays a case with; it depends on the two arguments alone."""
    words = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


@dataclass(frozen=True)
class Played:
    """One finished episode.

    Args:
        key: Of the case.
        batch: Number of the batch it was played in.
        episode: Everything that happened, masks included.
        rewards: One per step.
        seconds: Its share of the wall time, encoding included.
        answers: The model's answer in each step, word for word; empty for the array view.
        cut_off: Steps lost to an answer that ran into its limit before it held a call.
    """

    key: str
    batch: int
    episode: Episode
    rewards: tuple[float, ...]
    seconds: float
    answers: tuple[str, ...] = ()
    cut_off: int = 0

    @property
    def summary(self) -> EpisodeSummary:
        """Numbers of the episode."""
        return EpisodeSummary.of(self.episode, self.cut_off, self.rewards)


@dataclass(frozen=True)
class GivenUp:
    """An episode that its policy did not finish; it has no score.

    Args:
        key: Of the case.
        batch: Number of the batch it was played in.
        episode: As far as it was played.
        error: Why it was given up.
        seconds: Its share of the wall time.
        answers: As in `Played`.
    """

    key: str
    batch: int
    episode: Episode
    error: CaseFailed
    seconds: float
    answers: tuple[str, ...] = ()


def play_cases(
    envs: CoreVectorEnv,
    policy: Policy,
    keys: Sequence[str],
    seed: int = 0,
    skip_batches: frozenset[int] = frozenset(),
) -> Iterator[list[Played]]:
    """Play every case exactly once.

    Cases go in batches of `num_envs`, always the same ones together, so that what a run gives does
    not depend on where an earlier one was interrupted.

    Args:
        envs: With autoreset "disabled".
        policy: The policy that plays.
        keys: Of the cases, in order.
        seed: Of the policy.
        skip_batches: Numbers of batches that need not be played again.

    Yields:
        The episodes of one batch, in the order of `keys`.

    Raises:
        PolicyError: An environment that resets by itself, or a policy without an action for a slot.
        CaseFailed: The policy gave a case up.
    """
    size = envs.num_envs
    skip = {key for i, key in enumerate(keys) if i // size in skip_batches}
    for batch in play_or_give_up(envs, policy, keys, seed, skip):
        played = [one for one in batch if isinstance(one, Played)]
        for one in batch:
            if isinstance(one, GivenUp):
                raise one.error
        yield played


def play_or_give_up(
    envs: CoreVectorEnv,
    policy: Policy,
    keys: Sequence[str],
    seed: int = 0,
    skip: Collection[str] = (),
) -> Iterator[list[Played | GivenUp]]:
    """Play every case exactly once, where a policy may give cases up (see `play_cases`).

    Args:
        envs: With autoreset "disabled".
        policy: The policy that plays.
        keys: Of the cases, in order; they decide which ones share a batch.
        seed: Of the policy.
        skip: Keys among them that need not be played.

    Yields:
        The outcomes of one batch, in the order of `keys`.

    Raises:
        PolicyError: An environment that resets by itself, or a policy without an action for a slot.
    """
    if envs.metadata["autoreset_mode"] is not AutoresetMode.DISABLED:
        raise PolicyError(
            "play_cases needs environments that do not reset by themselves: "
            'use make_envs(...), or autoreset_mode="disabled" and .unwrapped'
        )
    give_engine(policy, envs)
    size = envs.num_envs
    for batch, start in enumerate(range(0, len(keys), size)):
        batch_keys = [key for key in keys[start : start + size] if key not in skip]
        if not batch_keys:
            continue
        # A short batch leaves slots over. They repeat its first case (already encoded) where they
        # have no episode to idle in yet. An episode that ended costs neither decoding nor a policy
        # that knows by it that no answer is awaited.
        padding = [batch_keys[0]] * (size - len(batch_keys))
        empty = np.array([episode is None for episode in envs.engine.episodes])
        mask = (np.arange(size) < len(batch_keys)) | empty
        yield _play_batch(envs, policy, batch_keys, padding, mask, seed, batch)


def _play_batch(
    envs: CoreVectorEnv,
    policy: Policy,
    keys: list[str],
    padding: list[str],
    reset_mask: np.ndarray,
    seed: int,
    batch: int,
) -> list[Played | GivenUp]:
    began = time.perf_counter()
    slots = range(len(keys))
    observations, _ = envs.reset(options={"case": keys + padding, "reset_mask": reset_mask})
    policy.reset(list(slots), [case_generator(seed, key) for key in keys])
    seconds = [(time.perf_counter() - began) / len(keys)] * len(keys)
    rewards: list[list[float]] = [[] for _ in keys]
    view = envs.view
    answers: list[list[str]] = [[] for _ in keys]
    cut_off = [0] * len(keys)
    failed: dict[int, CaseFailed] = {}
    spare = range(len(keys), envs.num_envs)
    running = list(slots)
    while running:
        began = time.perf_counter()
        episodes = [envs.engine.episode(slot) for slot in range(envs.num_envs)]
        actions = ask(policy, observations, episodes)
        check_actions(policy, actions, envs.num_envs)
        silent = [slot for slot in running if actions[slot] is None]
        if silent:
            raise PolicyError(f"policy {policy.name!r} has no answer for slots {silent}")
        failed |= {s: actions[s] for s in running if isinstance(actions[s], CaseFailed)}
        actions = view.idle(actions, [*spare, *failed])
        observations, values, terminations, truncations, _ = envs.step(actions)
        share = (time.perf_counter() - began) / len(running)
        for slot in running:
            seconds[slot] += share
            if slot in failed:
                continue
            rewards[slot].append(float(values[slot]))
            if isinstance(actions[slot], str):
                answers[slot].append(str(actions[slot]))
                cut_off[slot] += _was_cut(actions[slot], envs.engine.episode(slot))
        ended = terminations | truncations
        running = [slot for slot in running if not ended[slot] and slot not in failed]
    engine = envs.engine
    outcomes: list[Played | GivenUp] = []
    for slot, key in enumerate(keys):
        episode, texts = engine.episode(slot), tuple(answers[slot])
        if slot in failed:
            outcomes.append(GivenUp(key, batch, episode, failed[slot], seconds[slot], texts))
        else:
            earned = tuple(rewards[slot])
            outcomes.append(
                Played(key, batch, episode, earned, seconds[slot], texts, cut_off[slot])
            )
    return outcomes


def _was_cut(answer: str, episode: Episode) -> bool:
    """Return True if the newest step was lost because its answer was cut off."""
    return isinstance(answer, CutAnswer) and episode.steps[-1].error == answer.why


def make_envs(num_envs: int, env_id: str = "MedSeg-v0", **options: Any) -> CoreVectorEnv:
    """`gym.make_vec(env_id, ...)` with autoreset "disabled", as `play_cases` needs it."""
    import medseg_gym  # noqa: F401  (registers the ids)

    envs = gym.make_vec(env_id, num_envs=num_envs, autoreset_mode="disabled", **options)
    assert isinstance(envs.unwrapped, CoreVectorEnv)
    return envs.unwrapped


def caveats(policy: Policy, backbone: Backbone, episodes: Sequence[Episode]) -> list[str]:
    """List what a table must say beside a result.

    Args:
        policy: The policy that played.
        backbone: The segmenter.
        episodes: Those that were played.

    Returns:
        Among "oracle", "synthetic" and "not trained for clicks" (or boxes, or texts).
    """
    notes = ["oracle"] if policy.sees_truth else []
    if any(episode.case.synthetic for episode in episodes):
        notes.append("synthetic")
    kinds = {"box": "boxes", "point": "clicks", "text": "texts"}
    prompts = [s.prompt for episode in episodes for s in episode.steps if s.effect == "decode"]
    # In a volume the box or the click stands beside its slice.
    plain = [getattr(prompt, "prompt", prompt) for prompt in prompts]
    used = {"box" if isinstance(prompt, AddBox) else "point" for prompt in plain}
    untrained = [kinds[kind] for kind in sorted(used - backbone.trained_kinds)]
    if untrained:
        notes.append(f"not trained for {' and '.join(untrained)}")
    return notes
