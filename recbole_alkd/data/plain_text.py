"""Tables of plain text taken apart many lines at a time: no quotes, no blank lines, all fields in each line.

Taking one line after the other costs a list a row, which Python's garbage collector then looks through again
and again. What is not plain here is not judged here: whoever asks reads it line by line.
"""

from __future__ import annotations

import numpy as np


def plain_columns(text: str, separator: str, width: int) -> list[list[str]] | None:
    """The columns of whole lines, as ``csv.reader`` has them; None where that takes more than splitting.

    Args:
        text: lines with their ends, the last one with or without. separator: between fields. width: fields a
            line, at least 2.

    Returns:
        ``width`` lists of one text a line.

    Example:
        >>> plain_columns("a\\t1\\nb\\t2\\n", "\\t", 2)
        [['a', 'b'], ['1', '2']]
    """
    if width < 2 or len(separator) > 1 or not separator.isascii() or '"' in text or "\0" in text:
        return None
    if "\r" in text:
        if text.count("\r") != text.count("\r\n"):
            return None
        text = text.replace("\r\n", "\n")
    if not text.endswith("\n"):
        text += "\n"
    letters = np.frombuffer(text.encode(), dtype=np.uint8)
    marks = letters[(letters == ord("\n")) | (letters == ord(separator))]
    ends = np.flatnonzero(marks == ord("\n"))
    # the n-th line ends with the n-th line feed, which is the (n * width)-th mark
    if not np.array_equal(ends, np.arange(width - 1, len(marks), width)) or len(ends) * width != len(marks):
        return None
    fields = text.replace("\n", separator).split(separator)
    return [fields[column : len(marks) : width] for column in range(width)]
