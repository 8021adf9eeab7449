"""The gate between a challenger and production: it fails closed.

Read ``judge`` for the order of the checks, ``compare`` and ``weighted`` for the paired
bootstrap, ``evidence`` for what is kept, ``step`` for how a run starts it.
"""
