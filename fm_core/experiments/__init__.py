"""What makes every published number: one command each, ``python -m fm_core.experiments NAME``."""

from fm_core.experiments.records import load_record

__all__ = ["load_record"]
