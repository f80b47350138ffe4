"""Parts of a learner's forward pass that bound its memory: log-probabilities, layers, keys."""
