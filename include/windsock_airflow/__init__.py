"""Windsock's side of Airflow: DAG rendering, the warm executor, callbacks.

Importing this package imports nothing heavy; DAG files depend on that.
"""
