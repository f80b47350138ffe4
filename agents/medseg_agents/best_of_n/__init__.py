"""Rejection sampling: play cases several times, keep the best episodes, imitate them."""
