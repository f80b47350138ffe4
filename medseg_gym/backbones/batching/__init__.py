"""One padded batch from rows of different length: passes, collation, resizing."""
