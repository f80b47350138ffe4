"""How episodes are seen: gymnasium environments over one engine."""
