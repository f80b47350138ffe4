"""Volumes on the page: scans of the suite and of people's own, prompted slice by slice.

A game is a `VolumeEpisode` over the service's segmenter, so that its decodes are shared with those
of all clients; it is recorded as a game on an image is. Scans that people open lie in a temporary
folder while they are open, and nowhere afterwards: games on them are not recorded.
"""
