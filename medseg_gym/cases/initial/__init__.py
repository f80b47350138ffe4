"""Masks that episodes begin with: "nifti:PATH?initial_mask=wrong", which the agent is to repair."""
