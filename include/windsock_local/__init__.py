"""Windsock on one machine: the embedded stack, the demo and their commands (found by their entry points)."""
