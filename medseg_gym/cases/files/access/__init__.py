"""Open and list files that may be anything."""
