"""Needs of a run, before it is started: memory of every GPU, and the time of an iteration."""
