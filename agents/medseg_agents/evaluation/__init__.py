"""Play a split once, keep a record per case, summarise, compare and draw."""
