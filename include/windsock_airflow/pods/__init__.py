"""Steps in pods. Nothing is imported here: DAG files that need no pods must not pay for the Kubernetes client."""
