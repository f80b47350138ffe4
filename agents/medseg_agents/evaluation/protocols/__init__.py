"""Protocols that other people published, with their arithmetic and their names of columns.

Their numbers are not those of `medseg_gym.episodes.metrics`, and share no name with them.
"""

CVPR2025 = "cvpr2025-interactive-3d"
PROTOCOLS = (CVPR2025,)

__all__ = ["CVPR2025", "PROTOCOLS"]
