"""What a plan may call itself, its data sets and its arms, and how such a name is written where it could be
taken for more.

A plan's text is data. The name of a plan or of a data set becomes the name of a file, so it may not leave its
folder; an arm's name may be any line of text, which is escaped for Markdown and quoted for spreadsheets
(``bench.page`` escapes for HTML).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from recbole_alkd.settings.error import AlkdError

# characters; with an ending and a time a file name still stays below the 255 bytes of most file systems
LONGEST = 100
MOST_BYTES = 180
FORBIDDEN = '/\\:*?"<>|'  # at least one of the usual systems does not have them in a file name
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"),
}
MOST_NODES = 100_000


def file_name(value: Any, place: str) -> str:
    """``value`` as a name that is one file name on every system.

    Raises:
        AlkdError: what is wrong with it; the message begins with ``place``.
    """
    name = line(value, place)
    wrong = next((char for char in name if char in FORBIDDEN), None)
    if wrong is not None:
        what = f"has {wrong!r} in it"
    elif name[0] == "." or name[-1] == ".":
        what = "begins or ends with a dot"
    elif name.partition(".")[0].strip().casefold() in RESERVED:
        what = "is a device's name on Windows"
    elif len(name.encode()) > MOST_BYTES:
        what = f"has {len(name.encode())} bytes"
    else:
        return name
    raise AlkdError(
        f"{place}: {name!r} {what} and cannot name a file everywhere; "
        "allowed: letters, digits, spaces and most signs, none of "
        f"{FORBIDDEN}, no dot at either end, at most {MOST_BYTES} bytes"
    )


def line(value: Any, place: str) -> str:
    """``value`` as one line of text: characters that can be seen, 1 to ``LONGEST`` of them,
    no space at either end.

    Raises:
        AlkdError: it is no text (or number), or not such a one; the message begins with ``place``.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise AlkdError(f"{place}: {seen(value)} is not allowed; allowed: a name")
    name = str(value)
    # controls, line ends, marks that turn the direction of text, halves of surrogate pairs,
    # code points without a character
    hidden = next(
        (char for char in name if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")),
        None,
    )
    if hidden is not None:
        what = f"has a character that cannot be seen ({hidden.encode('unicode_escape').decode()})"
    elif not name.strip():
        what = "is empty"
    elif name != name.strip():
        what = "begins or ends with a space"
    elif len(name) > LONGEST:
        what = f"has {len(name)} characters"
    else:
        return name
    raise AlkdError(f"{place}: {seen(name)} {what}; allowed: one line of 1 to {LONGEST} characters")


def check_apart(arms: Iterable[tuple[str, str]]) -> None:
    """AlkdError where two arms, (name, words in the report), could not be told apart in a table.

    Case, spaces and the width of letters do not tell arms apart.
    """
    seen: dict[str, str] = {}
    for name, words in arms:
        for text in dict.fromkeys((_folded(name), _folded(words))):
            if text in seen:
                other = seen[text]
                twice = (
                    f"{name!r} stands there twice"
                    if other == name
                    else f"{other!r} and {name!r} look alike in the report"
                )
                raise AlkdError(
                    f"arms: {twice}; give a name of its own: {{name: ..., arm: ..., settings: ...}}"
                )
        seen.update(dict.fromkeys((_folded(name), _folded(words)), name))


def check_content(content: Any, place: str) -> None:
    """AlkdError where what was read from YAML cannot be worked with.

    References (``&a`` and ``*a``) may make it endless, or larger than any plan is; texts may hold a NUL,
    which no path may, or half of a surrogate pair, which no file may.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any) -> int:
        if isinstance(node, str):
            bad = next((char for char in node if char == "\0" or "\ud800" <= char <= "\udfff"), None)
            if bad is not None:
                raise AlkdError(f"{place}: {seen(node)} has {bad!r} in it; allowed: text without it")
        if not isinstance(node, (Mapping, list, tuple, set)):
            return 1
        key = id(node)
        if key in open_nodes:
            raise AlkdError(f"{place}: a list or mapping holds itself (*); allowed: no such reference")
        if key not in sizes:
            open_nodes.add(key)
            parts = [*node.keys(), *node.values()] if isinstance(node, Mapping) else list(node)
            sizes[key] = 1 + sum(map(size, parts))
            open_nodes.discard(key)
        return sizes[key]

    try:
        nodes = size(content)
    except RecursionError:
        raise AlkdError(f"{place}: lists or mappings are nested too deeply") from None
    if nodes > MOST_NODES:
        raise AlkdError(
            f"{place}: more than {MOST_NODES:,} values, references (*) counted in full; "
            "allowed: at most that many"
        )


def seen(value: Any) -> str:
    """A value in an error: printable, and not endless."""
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


def markdown_text(text: str) -> str:
    """``text`` as Markdown that shows exactly it: no HTML, link, image, emphasis, code or column
    of a table."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    escaped = re.sub(r"([\\`*\[\]~$|]|(?<!\w)_|_(?!\w))", r"\\\1", escaped)
    return re.sub(r"^([#+=-]|\d+[.)])", lambda start: re.sub(r"([#+=.)-])", r"\\\1", start.group()), escaped)


def spreadsheet_cell(value: Any) -> Any:
    """A value for CSV. Text that a spreadsheet would take for a formula begins with an apostrophe;
    numbers stay as they are."""
    if not isinstance(value, str):
        return value
    start = unicodedata.normalize("NFKC", value.lstrip())[:1]
    if start not in ("=", "+", "-", "@") or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
