"""Training chains, reinforcement learning and their tables."""
