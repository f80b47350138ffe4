"""A vision tower that has learned where things are, before a language model asks it."""
