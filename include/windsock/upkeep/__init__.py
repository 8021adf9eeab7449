"""Which days of a model are settled or lacking, and who waits; what is run by itself, and what a person is told."""
