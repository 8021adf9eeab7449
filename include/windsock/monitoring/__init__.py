"""Monitoring: does the champion still see what it was made for, and is it still right?

``window`` picks the rows that are compared, ``columns`` says which of them can be,
``drift`` compares them with Evidently, ``performance`` judges predictions whose labels
have arrived, ``step`` records the findings of a day.
"""
