"""Supervised fine-tuning of chat policies on exported trajectories, with TRL."""
