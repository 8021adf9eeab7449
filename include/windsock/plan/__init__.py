"""``windsock plan``: what an edit of a model means, before it is merged. It reads, and writes nothing.

``compare`` puts a model's plan together: ``base`` says what it is compared with, ``standing`` what the store holds,
``views``, ``columns``, ``labels`` and ``fields`` what differs and what follows, ``report`` how it is written down.
"""
