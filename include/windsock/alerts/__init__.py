"""Telling people: to the log always, to Slack if it is configured, and never at a run's expense.

``message`` is what is said, ``slack`` how it gets there in bounded time, ``send`` both.
"""

from windsock.alerts.message import Alert, Level, drift, failure, promotion, quarantine
from windsock.alerts.send import send

__all__ = ["Alert", "Level", "drift", "failure", "promotion", "quarantine", "send"]
