"""Errors that a user can act on: each names what failed, where, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MedSegError(ValueError):
    """Base of every error this package raises on purpose."""


class CaseError(MedSegError):
    """A case, case source or case specification cannot be used."""


class PromptError(MedSegError):
    """A prompt cannot be read or cannot be expressed in a codec."""


class BackboneError(MedSegError):
    """A backbone cannot be loaded, or was asked for something it cannot do."""


class ToolError(BackboneError):
    """A backbone cannot answer a tool that a policy or an environment is to use."""


class CheckpointError(BackboneError):
    """A model file is missing, damaged, foreign or unsafe."""


class EpisodeError(MedSegError):
    """An episode was used outside its life cycle (a step before reset, say)."""


class RewardError(MedSegError):
    """A reward gave something else than finite numbers."""


class PolicyError(MedSegError):
    """A policy is unknown, misconfigured, or does not fit the view it was given."""


class CaseFailed(PolicyError):
    """A policy gives one case up for a reason that need not concern the others.

    Policies return it in place of an action (see `medseg_gym.policy.Policy.act`).
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" with the nearest known words, or "" where none is near."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
