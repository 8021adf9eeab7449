"""Ingest: one day's delivery becomes rows that later stages can trust, or is refused with reasons.

Read ``step`` for the order of things, ``sources`` for where deliveries come from, ``conform``
for names, types and what is set aside, ``windsock.validate`` for what values must be, ``records`` for what
a delivery leaves behind, ``labels`` for answers and when they become known.
"""
