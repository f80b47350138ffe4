"""Segment Anything, batched over images."""
