"""Windsock's side of Airflow. Importing this package imports nothing heavy; DAG files depend on that."""
