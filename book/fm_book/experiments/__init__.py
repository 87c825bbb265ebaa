"""What makes every published number: one command each, ``python -m fm_book.experiments NAME``."""

from fm_book.records import load_record

__all__ = ["load_record"]
