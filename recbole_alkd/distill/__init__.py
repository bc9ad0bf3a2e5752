"""Distillation losses, one a file. Importing this package registers the built-in ones."""

from recbole_alkd.distill import pairwise  # noqa: F401
