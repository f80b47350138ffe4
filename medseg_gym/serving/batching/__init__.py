"""Micro-batching: requests of many clients in one call to the backbone."""
