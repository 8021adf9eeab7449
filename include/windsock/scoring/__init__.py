"""Daily batch scores by the champion of the day; see ``step``."""
