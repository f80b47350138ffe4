"""A run on disk: options, logs, checkpoints, curves, and the machine it was measured on."""
