"""Array policies from an annotator and then by PPO, on usual and on random positions."""
