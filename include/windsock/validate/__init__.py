"""Validation of a day's rows with Great Expectations.

``suites`` finds and completes a model's expectations, ``engine`` runs them, ``sentences``
says in words what they found, ``docs`` keeps it for people.
"""
