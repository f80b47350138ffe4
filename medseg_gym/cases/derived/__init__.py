"""Sources made of other sources: a pool drawn from one, and all splits of one together."""
