"""The built-in kinds of model: one protocol (``learner``), LightGBM (``booster``), a network (``neural``).

A learner trains with given parameters; ``search`` chooses them, ``trainers`` run the whole.
"""
