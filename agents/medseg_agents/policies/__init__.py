"""Policies by their spec: trained networks, language models, baselines and controls."""
