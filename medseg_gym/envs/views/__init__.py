"""Views: show an episode and read actions, as arrays or as a conversation."""
