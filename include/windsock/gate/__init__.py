"""The gate between a challenger and production: it fails closed.

Read ``checks`` for what is asked, ``judge`` for how, ``compare`` for the paired bootstrap,
``evidence`` and ``report`` for what is kept, ``step`` for how a run starts it.
"""
