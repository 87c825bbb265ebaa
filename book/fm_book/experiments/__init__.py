"""What makes every recorded number: ``python -m fm_book.experiments NAME``."""
