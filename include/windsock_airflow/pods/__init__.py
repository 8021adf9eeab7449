"""Steps in pods: the operator, and what it is made of.

``operator`` runs one step in one pod, whatever happens to either; ``manifest`` says what
the pod looks like, ``status`` what has become of it, ``work`` what runs in it, ``record``
what the next process must know, ``cluster`` speaks to Kubernetes, and ``sweep`` removes
pods that nobody waits for. Nothing is imported here: DAG files that need no pods must not
pay for the Kubernetes client. ``windsock_airflow.heavy`` chooses.
"""
