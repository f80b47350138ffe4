"""Failures of a model's server: for everybody, or in one conversation."""

from __future__ import annotations

from medseg_gym.errors import CaseFailed, PolicyError


class ServerError(PolicyError):
    """A model's server cannot be reached, refuses, or answers what is no answer."""


class ConversationError(ServerError, CaseFailed):
    """A server did so in one conversation; whether others fare better is to be seen."""
