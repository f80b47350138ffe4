"""Checks for any vector environment."""
