"""Volumes whose slices were played one by one: put together again, scored in 3D, written.

Metrics of volumes begin with `volume_`, so that nobody takes them for those of slices or of a
published protocol.
"""
