"""Selection policies, one a file. Importing this package registers the built-in ones."""

from recbole_alkd.active.policy import easiest, hardest, listed, max_min, random  # noqa: F401
