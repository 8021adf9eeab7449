"""Fixtures of the tests that ask Airflow's database."""

from airflow_tables import session

__all__ = ["session"]
