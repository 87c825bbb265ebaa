"""What only this book needs: metrics, experiments, records, figures of single chapters."""

from fm_book.records import load_record
from fm_book.scale import scaled

__all__ = ["load_record", "scaled"]
