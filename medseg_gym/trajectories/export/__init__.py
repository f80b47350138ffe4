"""Stores as training sets, summaries and contact sheets."""
