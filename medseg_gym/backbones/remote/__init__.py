"""Backbones in another process, over HTTP or Ray."""
