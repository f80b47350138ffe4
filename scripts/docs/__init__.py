"""Programs that write the documentation's generated pages."""
