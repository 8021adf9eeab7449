"""The governor: turns nightly signals into at most one retraining per drift.

``policy`` decides and does nothing else; ``step`` reads what it needs and records the
decision. The decision of a day depends on the signals of that day and earlier ones and on
the requests made on other days, so running a day again changes nothing.
"""

from windsock.governor.policy import Decision, Lead, Request, Signal, decide

__all__ = ["Decision", "Lead", "Request", "Signal", "decide"]
