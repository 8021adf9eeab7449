"""Validation of a day's rows with Great Expectations.

``suites`` finds and completes a model's expectations, ``engine`` runs them, ``sentences``
says in words what they found, ``results`` and ``docs`` keep it for people.
"""
