"""The demo: the whole loop on one machine, driven through Airflow like a person would.

``plan`` chooses the days and writes the demo's own copy of the model, ``loop`` drives
the stack, ``facts`` reads what happened from the ledgers, ``report`` tells it.
"""
