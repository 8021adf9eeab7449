"""Making a challenger champion, and going back: both write to the append-only ``windsock.promotions``."""
