"""Handlers of the MONAI Label routes."""
