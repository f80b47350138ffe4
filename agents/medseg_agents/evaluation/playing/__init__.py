"""Cases of a split shared out to workers: what is dealt, who plays it, and what becomes of it."""

from medseg_agents.evaluation.playing.jobs import Entry, Part, PlayedJob, PlayJob
from medseg_agents.evaluation.playing.player import SplitPlayer
from medseg_agents.evaluation.playing.work import SplitWork

__all__ = ["Entry", "Part", "PlayJob", "PlayedJob", "SplitPlayer", "SplitWork"]
