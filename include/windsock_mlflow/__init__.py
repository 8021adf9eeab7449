"""MLflow's server behind a door of our own, the same in the embedded stack, in compose and on Kubernetes.

``server`` starts it, ``door`` lets in or refuses, ``routes`` says what there is, ``named`` what a request asks about.
"""
