"""Policies that play beside people, on the same cases and with the same segmenter."""
