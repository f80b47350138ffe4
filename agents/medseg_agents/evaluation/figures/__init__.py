"""Images of what policies segmented."""

from medseg_agents.evaluation.figures.calls_used import plot_calls_used
from medseg_agents.evaluation.figures.filmstrips import draw_filmstrips, draw_filmstrips_of
from medseg_agents.evaluation.figures.overlays import draw_overlays

__all__ = ["draw_filmstrips", "draw_filmstrips_of", "draw_overlays", "plot_calls_used"]
