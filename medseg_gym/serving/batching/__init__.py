"""Requests of many clients in one decoder call, and the sessions between them."""
