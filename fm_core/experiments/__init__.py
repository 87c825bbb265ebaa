"""What makes every published number: one command each, ``python -m fm_core.experiments NAME``."""
