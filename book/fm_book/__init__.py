"""What only this book needs: metrics, experiments, records, figures of single chapters."""

from fm_book.records import load_record
from fm_book.scale import scaled
from fm_book.tables import table

__all__ = ["load_record", "scaled", "table"]
