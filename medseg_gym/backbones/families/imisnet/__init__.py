"""IMISNet, batched over images."""
