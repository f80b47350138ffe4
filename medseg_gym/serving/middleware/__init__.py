"""What every request passes: API keys, limits, logs, metrics."""
