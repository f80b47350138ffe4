"""Weights on their way: what training begins with, its reference, what is saved and exported."""
