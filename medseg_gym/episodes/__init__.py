"""Episodes, the engine that steps them, rewards, metrics and summaries.

An `Episode` is one case being segmented, `EpisodeEngine` the only place where a step happens, and
`EpisodeSummary` the one definition of an episode's numbers.
"""

from medseg_gym.episodes import metrics, rewards
from medseg_gym.episodes.decode_options import DecodeOptions
from medseg_gym.episodes.engine import EpisodeEngine, StepResult, episode_info
from medseg_gym.episodes.episode import Episode, MaskState, Step
from medseg_gym.episodes.summary import EpisodeSummary, mean_summary
from medseg_gym.errors import EpisodeError

__all__ = [
    "DecodeOptions",
    "Episode",
    "EpisodeEngine",
    "EpisodeError",
    "EpisodeSummary",
    "MaskState",
    "Step",
    "StepResult",
    "episode_info",
    "mean_summary",
    "metrics",
    "rewards",
]
