"""The web page at `/`: people play what agents play, beside them, and leave trajectories.

A game is a session of the service, so it is an `Episode` of the one engine and shares its decoder
calls with everybody else's. What people and policies do is written through the trajectory store,
step by step. `static/` holds the page itself: plain HTML, CSS and ES modules.
"""

from medseg_gym.play.extension import PageExtension
from medseg_gym.play.options import BuiltIn, PageOptions, PagePolicy

__all__ = ["BuiltIn", "PageExtension", "PageOptions", "PagePolicy"]
