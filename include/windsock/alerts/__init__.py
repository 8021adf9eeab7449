"""Alerts: to the log always, to Slack if it is configured, and never at a run's expense.

``message`` is the text, ``slack`` posts it in bounded time, ``send`` does both.
"""

from windsock.alerts.message import Alert, Level, failure
from windsock.alerts.send import send

__all__ = ["Alert", "Level", "failure", "send"]
