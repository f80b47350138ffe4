"""How the documentation's generated pages come about."""
