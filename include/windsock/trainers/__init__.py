"""From a request to a judged model: ``fit`` trains every candidate, ``choose`` judges them on the holdout.

The built-in trainer is ``trainer`` (``python -m windsock.trainers.trainer``); it needs neither Airflow nor Feast.
"""
