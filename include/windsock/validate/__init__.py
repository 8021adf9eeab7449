"""Validation of a day's rows with Great Expectations: a model's suite, what it found in words, and Data Docs."""
