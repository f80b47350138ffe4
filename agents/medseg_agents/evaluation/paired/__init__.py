"""Two runs side by side: the same cases, played twice, and what differs between them."""

from medseg_agents.evaluation.paired.comparison import PairedComparison, compare_runs

__all__ = ["PairedComparison", "compare_runs"]
