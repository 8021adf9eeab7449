"""Fixtures of the whole test session."""

from stack_fixture import stack

__all__ = ["stack"]
