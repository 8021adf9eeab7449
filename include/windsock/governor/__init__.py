"""The governor: turns nightly signals into at most one retraining per drift."""
