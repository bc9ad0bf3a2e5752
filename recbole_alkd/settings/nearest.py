"""Did you mean: the known name that is most like a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[object], cutoff: float = 0.6) -> str | None:
    """The known name that is most like ``word``, whatever its case; None where none is like it.

    Args:
        cutoff: how alike the two must be, 0 (anything) to 1 (the same), as ``difflib.get_close_matches`` has
            it.
    """
    names: dict[str, str] = {}
    for name in sorted(map(str, known)):
        names.setdefault(name.lower(), name)
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=cutoff)
    return names[close[0]] if close else None


def hint(word: object, known: Iterable[object], cutoff: float = 0.6) -> str:
    """The end of an error's words: `` (did you mean 'max_min'?)``, or nothing."""
    close = nearest(word, known, cutoff)
    return f" (did you mean {close!r}?)" if close else ""
