"""How an episode is shown and how actions are read: as arrays, or as a conversation."""
