"""A feed-forward network for tables, or a module of the user's own, trained by PyTorch.

``learner`` is what search and trainer see; like ``device`` and ``user_module`` it loads PyTorch only when it is used.
"""
