"""Errors of training a policy that chats."""

from medseg_gym.errors import MedSegError


class LogProbMismatch(MedSegError):
    """Sampler and learner disagree about how probable an answer was."""


class LostGroups(MedSegError):
    """Too few groups came back from the runners to learn from."""


class OtherLearnerFailed(MedSegError):
    """A learner stopped because another one failed, so that none waits for it."""
