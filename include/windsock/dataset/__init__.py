"""The rows that a model is trained and judged on: joined point in time, split by time, frozen by ``step``.

Scoring and monitoring join features and labels by the same code (``feature_join``, ``label_join``).
"""
