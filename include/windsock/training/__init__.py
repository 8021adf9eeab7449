"""From feature tables to a judged model, in three steps.

``assemble`` lays the windows (``windows``), freezes the rows and writes a request for each
estimator (``contract``). A trainer turns a request into a candidate: the built-in one is
``trainer``, which searches (``search``) and trains (``learn``) with a ``learner``, LightGBM's
(``booster``) or PyTorch's (``neural``); it needs neither Airflow nor Feast. ``choose`` judges
the candidates (``judging``). ``model`` loads what comes out.
"""
