"""Cleaning up after a model: what nothing refers to, and what the spec's ``retention`` lets go."""
