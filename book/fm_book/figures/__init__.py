"""Figures that one chapter needs, one module each."""
