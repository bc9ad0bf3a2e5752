"""Selection policies, one a file. Importing this package registers the built-in ones."""

from recbole_alkd.active.policy import (  # noqa: F401
    disagreement,
    easiest,
    hardest,
    listed,
    max_min,
    paper,
    paper_printed,
    rad_bc,
    random,
    uncertainty,
)
