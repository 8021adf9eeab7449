"""A feed-forward network for tables, or a module of the user's own, trained by PyTorch.

``learner`` is what search and trainer see. Below it: ``data`` (rows on the device or sent
to it), ``loop`` (the training), ``step`` (one step of it), ``checkpoint`` (going on after
a kill), ``distributed`` (several processes), ``user_module`` (the user's own network),
``trained`` and ``onnx_export`` (the result).

Nothing here loads PyTorch before it is used.
"""

from windsock.learners.neural.learner import NetworkLearner

__all__ = ["NetworkLearner"]
