"""Episodes of chat policies: the runner, and their tokens as rows of a batch."""
