"""Policies that play and learn: evaluation and, with their libraries installed, the trainers."""
