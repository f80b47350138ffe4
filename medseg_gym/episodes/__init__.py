"""What happens: episodes, the engine that steps them, rewards and metrics."""

from medseg_gym.episodes import metrics, rewards
from medseg_gym.episodes.engine import DecodeOptions, EpisodeEngine, StepResult, episode_info
from medseg_gym.episodes.episode import Episode, MaskState, Step
from medseg_gym.errors import EpisodeError

__all__ = [
    "DecodeOptions",
    "Episode",
    "EpisodeEngine",
    "EpisodeError",
    "MaskState",
    "Step",
    "StepResult",
    "episode_info",
    "metrics",
    "rewards",
]
