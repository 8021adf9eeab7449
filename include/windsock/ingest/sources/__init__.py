"""Sources: fetch one day's delivery as it came, whatever it comes from.

Nothing is judged here but whether the delivery can be read at all. Column types are left
as delivered (CSV: everything is text, empty is null), so that the next stage can report
bad values by count and example. Read ``delivery`` next, then one source.
"""
