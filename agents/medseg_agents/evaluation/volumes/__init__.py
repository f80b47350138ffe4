"""Volumes, played as a whole or put together from their slices: scored in 3D, written.

Metrics of volumes begin with `volume_`, so that nobody takes them for those of slices or of a
published protocol.
"""
