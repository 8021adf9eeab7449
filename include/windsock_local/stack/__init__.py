"""The embedded stack: ``lifecycle`` is what commands call, ``supervisor`` keeps the ``parts`` alive."""
