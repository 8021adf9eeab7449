"""Windsock: machine learning in production that looks after itself.

It imports no Airflow, so that the same code runs in a task, in a pod, in a test and in a notebook. Read ``steps`` next
for how a stage is started, ``spec`` for how a model is described and ``tables`` for how data is published.
"""

__version__ = "0.2.0"
