"""Trackers of a run's metrics, tables and alerts: TensorBoard, Weights & Biases, MLflow."""

from medseg_agents.runs.trackers.protocol import Table, Tracker, TrackerLost
from medseg_agents.runs.trackers.registry import make_trackers, names, register, split

__all__ = ["Table", "Tracker", "TrackerLost", "make_trackers", "names", "register", "split"]
