"""Stores of the page: recordings of people and policies, uploaded images, and the leader board."""
