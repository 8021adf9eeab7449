"""Ingest: one day's delivery becomes rows that later stages can trust, or is refused with reasons.

Read ``step`` for the order of things, ``sources`` for where deliveries come from, ``conform``
for names and types, ``windsock.validate`` for what values must be, ``quarantine`` for what is
set aside, ``records`` for what a delivery leaves behind, ``labels`` for answers and when they become
known.
"""
