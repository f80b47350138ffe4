"""A reward that waits once, when a first checkpoint is kept: whoever trains is killed then."""

import time
from pathlib import Path

from reward import final_iou as _final_iou

HERE = Path(__file__).parent


def final_iou(episode):
    """IoU where an episode ends."""
    held = HERE / "held"
    if not held.exists() and any(HERE.glob("runs/killed/checkpoints/step-?????????")):
        held.touch()
        time.sleep(600)
    return _final_iou(episode)
