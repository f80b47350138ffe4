"""Policies of the array view: networks, cloning, and their trainers."""
