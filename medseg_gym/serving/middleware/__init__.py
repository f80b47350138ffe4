"""The layer that every request passes before the routes: API keys, limits on bodies and pixels."""
