"""Windsock on one machine: the embedded stack, the demo and their commands.

Lies beside the product, which does not know it: ``windsock`` finds these commands by their entry points.
"""
