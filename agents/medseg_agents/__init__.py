"""Who plays: evaluation and, with their libraries installed, the trainers."""
