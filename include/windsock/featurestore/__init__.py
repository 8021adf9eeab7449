"""The feature store: Feast's API over Windsock's own tables, exact in time.

``retrieval`` gives training and scoring their features point-in-time; ``step`` keeps the online store up to date and
proves that it equals the tables; ``definitions`` registers what the model specs describe. ``offline`` and ``online``
are the two stores that ``feature_repo/feature_store.yaml`` names. Only they, ``source``, ``reading`` and ``feast_sink``
import Feast, because that costs seconds: a daily run on the embedded stores does without it.
"""
