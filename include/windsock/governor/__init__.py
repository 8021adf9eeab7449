"""The governor: turns nightly signals into few requests for a retraining, and into word to people where they fail."""
