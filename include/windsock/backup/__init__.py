"""Backups: a place that keeps them (``target``), and what is taken of a store and put back there (``store_copy``).

What else an installation has, its databases and its home, is known to ``windsock_local.backup``.
"""
