"""Preference pairs for DPO: two calls after the same conversation, and what each of them led to.

Episodes of a store that begin alike (the same case, segmenter and options, the same calls with the
same masks) are in the same state until their calls differ. What a call is worth there is the mean
reward-to-go of the episodes that made it: the sum of rewards from that step on. Forks, several
rollouts of a case and different policies all give such episodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.chat_kinds import kind_of
from medseg_gym.envs.views.messages import text_message
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.export.chat_format import png
from medseg_gym.trajectories.export.export import (
    IMAGES,
    MESSAGES,
    chat_for,
    features_of,
    write_with_view,
)
from medseg_gym.trajectories.replaying.rebuild import AnyCases, StoredCases
from medseg_gym.trajectories.replaying.volumes import rebuild_found
from medseg_gym.trajectories.store.arrow import pa
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.trajectory import EpisodeKey, Trajectory

_FACTS = [
    ("case", pa.string()),
    ("turn", pa.int32()),
    ("score_chosen", pa.float64()),
    ("score_rejected", pa.float64()),
]
PAIRS_SCHEMA = pa.schema(
    [
        *((name, MESSAGES) for name in ("prompt", "chosen", "rejected")),
        ("images", IMAGES),
        *_FACTS,
    ],
    metadata=features_of(("prompt", "chosen", "rejected"), _FACTS),
)


@dataclass
class PairCounts:
    """Counts of what was written and left out.

    Args:
        pairs: Written.
        states: In which at least two different calls were made.
        close: Of these, states whose calls are all worth the same within the margin.
        unreadable: Episodes with an action that could not be read; used up to there.
        truthless: Episodes on images whose truth is not known, so without rewards; not used.
        alone: Further episodes of which no call was made in a state where another was made too.
    """

    pairs: int = 0
    states: int = 0
    close: int = 0
    unreadable: int = 0
    truthless: int = 0
    alone: int = 0


@dataclass
class _State:
    """One state: an episode that was there, at which turn, and what followed each call."""

    example: EpisodeKey
    turn: int
    values: dict[str, list[float]] = field(default_factory=dict)
    episodes: set[EpisodeKey] = field(default_factory=set)


def export_pairs(
    store: TrajectoryStore,
    path: str | Path,
    margin: float = 0.02,
    per_state: int = 1,
    chat: ChatOptions | None = None,
    cases: AnyCases = None,
    on_episode: Callable[[], None] | None = None,
) -> PairCounts:
    """Write pairs of calls as TRL's `DPOTrainer` takes them.

    One row a pair: `prompt`, the conversation up to the call; `images`, those in it; `chosen` and
    `rejected`, one assistant's turn each; `case`, `turn`, and `score_chosen` and
    `score_rejected`, what each was worth. The verdicts of annotators count nothing: what was not
    accepted is rejected here by what it led to.

    Args:
        store: To read, of images or of volumes.
        path: Of the parquet file.
        margin: By which the chosen call must be worth more, in units of the recorded reward.
        per_state: Pairs of one state at most, those that differ most.
        chat: How states are shown; see `export.export_store`.
        cases: See `StoredCases`.
        on_episode: Called after each episode.

    Raises:
        TrajectoryError: A margin that is not above 0, no pair in the store, cases that are not at
            hand, a call whose tool the view does not have, or what `chat_for` says.
    """
    if not margin > 0 or per_state < 1:
        raise TrajectoryError(
            f"need margin > 0 and per_state >= 1, got {margin} and {per_state}: calls that are "
            "worth the same are no preference"
        )
    chat, counts = chat_for(store, chat), PairCounts()
    view: ChatView = kind_of(chat).view(chat)
    states = _states(store, view, counts, on_episode)
    pairs = [
        (state, better, worse)
        for state in states
        for better, worse in _pairs(state, margin, counts)[:per_state]
    ]
    counts.pairs = len(pairs)
    if not pairs:
        raise TrajectoryError(
            f"{store.path} gives no pair: {len(store)} episodes, {counts.states} states with two "
            f"different calls, {counts.close} of them worth the same within {margin}, "
            f"{counts.alone} episodes that share no such state, {counts.unreadable} with an action "
            "that could not be read; play cases several times (generate --rollouts), or give a "
            "smaller margin"
        )
    images = StoredCases(cases)
    rows = (_row(store, state, better, worse, view, images) for state, better, worse in pairs)
    write_with_view(path, rows, PAIRS_SCHEMA, chat)
    return counts


def _states(
    store: TrajectoryStore,
    view: ChatView,
    counts: PairCounts,
    on_episode: Callable[[], None] | None,
) -> list[_State]:
    """States in which different calls were made."""
    states: dict[bytes, _State] = {}
    used: set[EpisodeKey] = set()
    for one in store:
        if one.facts.truth_known:
            counts.unreadable += None in one.prompts
            used.add(one.key)
            for state, turn, call in _walk(one, view):
                met = states.setdefault(state, _State(one.key, turn))
                met.values.setdefault(call, []).append(sum(one.rewards[turn:]))
                met.episodes.add(one.key)
        else:
            counts.truthless += 1
        if on_episode:
            on_episode()
    several = [state for state in states.values() if len(state.values) > 1]
    counts.states = len(several)
    counts.alone = len(used.difference(*(state.episodes for state in several)))
    return several


def _walk(one: Trajectory, view: ChatView) -> Iterator[tuple[bytes, int, str]]:
    """Name of each state of an episode, its turn, and the call that was made in it."""
    facts = one.facts
    begun = [facts.cases, facts.split, facts.key.case, facts.image_hash, facts.backbone]
    begun += [facts.checkpoint_hash, json.dumps(dict(facts.options), sort_keys=True)]
    state = blake2b(repr(begun).encode() + facts.truth, digest_size=16).digest()
    for turn, step in enumerate(one.steps):
        if step.prompt is None:
            return
        if step.tool not in view.tools:
            raise TrajectoryError(
                f"{one.key}: step {turn} uses the tool {step.tool!r}, which is not among those of "
                f"the chat, {view.tools}"
            )
        call = view.write_call(step.prompt)
        yield state, turn, call
        state = blake2b(state + repr(step.prompt).encode() + step.mask, digest_size=16).digest()


def _pairs(state: _State, margin: float, counts: PairCounts) -> list[tuple[str, str]]:
    """Pairs of calls, the better one first; those that differ most come first."""
    worth = {call: fmean(values) for call, values in state.values.items()}
    ordered = sorted(worth, key=lambda call: (-worth[call], call))
    apart = [
        (better, worse)
        for better, worse in combinations(ordered, 2)
        if worth[better] - worth[worse] >= margin
    ]
    counts.close += not apart
    return sorted(apart, key=lambda pair: worth[pair[1]] - worth[pair[0]])


def _row(
    store: TrajectoryStore,
    state: _State,
    better: str,
    worse: str,
    view: ChatView,
    cases: StoredCases,
) -> dict[str, Any]:
    one = store.episode(state.example)
    episode: Any = rebuild_found(replace(one, steps=one.steps[: state.turn]), cases)
    return {
        "prompt": view.messages(episode),
        "chosen": [text_message("assistant", better)],
        "rejected": [text_message("assistant", worse)],
        "images": [{"bytes": png(image), "path": None} for image in view.images(episode)],
        "case": state.example.case,
        "turn": state.turn,
        "score_chosen": fmean(state.values[better]),
        "score_rejected": fmean(state.values[worse]),
    }
