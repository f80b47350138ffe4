"""Files that survive a kill: atomic writes, locks, line files."""
