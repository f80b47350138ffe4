"""A reward in a file."""

from medseg_gym.episodes.rewards import RewardValue


def final_iou(episode):
    """IoU where an episode ends."""
    value = episode.iou if episode.done else 0.0
    return RewardValue(value, {"final_iou": value})
