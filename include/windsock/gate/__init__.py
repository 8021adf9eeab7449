"""The gate between a challenger and production: it fails closed. ``checks`` is what it asks for."""
