"""Volumes on the page: scans of the suite and of people's own, prompted slice by slice.

A game is a `VolumeEpisode` over the service's segmenter, so that its decodes are shared with those
of all clients. It is neither recorded nor on the leader board. Scans that people open lie in a
temporary folder while they are open, and nowhere afterwards.
"""

from medseg_gym.play.volumes.routes import volume_router
from medseg_gym.play.volumes.state import VolumePage

__all__ = ["VolumePage", "volume_router"]
