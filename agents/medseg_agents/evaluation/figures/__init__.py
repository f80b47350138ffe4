"""Images of what policies segmented."""

from medseg_agents.evaluation.figures.overlays import draw_overlays

__all__ = ["draw_overlays"]
