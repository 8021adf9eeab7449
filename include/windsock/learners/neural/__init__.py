"""A feed-forward network for tables, in PyTorch.

``learner`` is what search and trainer see. Below it: ``network`` (the module), ``batches``
(rows on the device or sent to it), ``loop`` (the training), ``gradient`` and ``adamw`` (one
step of it), ``randomness`` (orders and masks), ``checkpoint`` (going on after a kill),
``distributed`` (several processes), ``learned`` and ``export`` (the result).

Nothing here loads PyTorch before it is used.
"""

from __future__ import annotations

from windsock.learners.neural.learner import NetworkLearner

__all__ = ["NetworkLearner"]
