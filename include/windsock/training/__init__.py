"""From feature tables to a judged model: windows, training set, search, metrics, artifact.

Read ``windows`` for which days a training as of T uses, ``assemble`` for the training
set, ``fit`` for the trainer (it needs neither Airflow nor Feast) and ``model`` for what
comes out. ``assemble_step`` and ``fit_step`` are their entry points.
"""
