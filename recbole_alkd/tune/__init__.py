"""Searching settings on validation: ``recbole-alkd tune``."""
