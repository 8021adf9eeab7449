"""Model versions: MLflow keeps them for people, the store's index keeps them for the loop.

``step`` registers a run folder, ``models`` loads a version, ``client`` talks to MLflow.
"""
