"""Commands that this package adds to `medseg`: train, run, eval, compare, play, export-model."""
