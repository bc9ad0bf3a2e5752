"""Benchmark files, rows (session, history, item) that somebody else wrote:
what their histories must look like.

RecBole takes any text for a list of ids, so that ``8,9,11`` becomes one item and a padding of zeros an item
that is trained and recommended. Here both are errors that show the list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from recbole_alkd.data.frames import Columns, split_list
from recbole_alkd.data.tables import MISSING, PADDING, clean_id, shown
from recbole_alkd.settings.error import AlkdError

# What lists look like elsewhere: [8, 9], (8; 9), {8|9}.
_SIGN = re.compile(r"[\W_]")
_MARKUP = re.compile(r"[\[\](){},;|'\"]")
# Tokens that stand for "no item" in other people's files. Some of them are ids in others,
# so the lists must show it.
_PADS = ("0", "-1", "pad", "PAD", "<pad>", "<PAD>")


def check_rows(
    parts: Sequence[Columns], session_field: str, list_field: str, item_field: str, seq_separator: str,
    described: Callable[[], set[str]] = set,
) -> None:  # fmt: skip
    """Look at every row of benchmark files.

    Args:
        parts: the files, with these columns.
        described: gives the ids of the ``.item`` file; called only where a list looks odd.

    Raises:
        AlkdError: a file without rows; a row without session, history or item; a list in another form;
            padding.
    """
    for part in parts:
        if not part.line:
            raise AlkdError(f"{part.path}: no rows; train, valid and test need at least one each")
        if part.kinds[list_field] != "token_seq":
            raise AlkdError(
                f"{part.path}, line 1: {list_field}:{part.kinds[list_field]} is no column of lists; allowed: "
                f"{list_field}:token_seq, {_form(seq_separator)}"
            )
        _check_blank(part, session_field, list_field, item_field, seq_separator)
    targets = {clean_id(text) for part in parts for text in part.texts[item_field]}
    _check_markup(parts, list_field, seq_separator, targets, described)
    for pad in (*_PADS, *_own_padding(parts, list_field, seq_separator, targets)):
        if pad not in targets:
            _check_padding(parts, list_field, seq_separator, pad, described)


def _form(seq_separator: str) -> str:
    between = "a space" if seq_separator == " " else repr(seq_separator)
    return (
        f"ids with {between} between them (seq_separator), oldest first, without brackets or padding, "
        f"such as 8{seq_separator}9"
    )


def _check_blank(
    part: Columns, session_field: str, list_field: str, item_field: str, seq_separator: str
) -> None:
    empty = [
        line
        for text, line in zip(part.texts[list_field], part.line, strict=True)
        if not split_list(text, seq_separator)
    ]
    pairs = zip(part.texts[session_field], part.texts[item_field], part.line, strict=True)
    blank = [line for session, item, line in pairs if not clean_id(session) or not clean_id(item)]
    if empty or blank:
        raise AlkdError(
            f"{part.path}: rows without session, history or item (line {shown(sorted({*empty, *blank}))}; "
            f"{len(empty)} empty "
            "histories); remove them"
        )
    for text, line in zip(part.texts[list_field], part.line, strict=True):
        if PADDING in text or not MISSING.isdisjoint(split_list(text, seq_separator)):
            raise AlkdError(
                f"{part.path}, line {line}: {list_field} {_cut(text)} has a place without item; "
                f"{_form(seq_separator)}"
            )


def _check_markup(
    parts: Sequence[Columns],
    list_field: str,
    seq_separator: str,
    targets: set[str],
    described: Callable[[], set[str]],
) -> None:
    known: set[str] | None = None
    odd: dict[str, tuple[Columns, str, int]] = {}  # words that are no target -> where they stand first
    for part in parts:
        for text, line in zip(part.texts[list_field], part.line, strict=True):
            for word in split_list(text, seq_separator):
                if word not in targets and word not in odd:
                    odd[word] = part, text, line
            if not _MARKUP.search(text):
                continue
            known = targets | described() if known is None else known  # an id may hold a comma
            if any(_MARKUP.search(word) and word not in known for word in split_list(text, seq_separator)):
                raise _no_list(part, text, line, list_field, seq_separator)
    joined = [word for word in odd if _is_joined(word, targets)]
    if 2 * len(joined) > len(odd):  # 8_9_11: most words that are never a target are several targets
        joined = [word for word in joined if word not in described()]
        if joined:
            raise _no_list(*odd[joined[0]], list_field, seq_separator)


def _no_list(part: Columns, text: str, line: int, list_field: str, seq_separator: str) -> AlkdError:
    return AlkdError(
        f"{part.path}, line {line}: {list_field} {_cut(text)} is not read as a list; "
        f"allowed: {_form(seq_separator)}"
    )


def _is_joined(word: str, targets: set[str]) -> bool:
    """Whether ``word`` is several ids with one sign between them."""
    signs = set(_SIGN.findall(word))
    return any(all(name in targets for name in word.strip(sign).split(sign)) for sign in signs)


def _own_padding(
    parts: Sequence[Columns], list_field: str, seq_separator: str, targets: set[str]
) -> list[str]:
    """What else may be padding, whatever its name: no target, and twice in a row at an end of many lists,
    all of one length."""
    ends: Counter[str] = Counter()
    width = lists = 0
    for part in parts:
        for text in part.texts[list_field]:
            words = split_list(text, seq_separator)
            if width and len(words) != width:
                return []
            width, lists = len(words), lists + 1
            if width > 1:
                ends.update({words[end] for end, next_ in ((0, 1), (-1, -2)) if words[end] == words[next_]})
    return [
        word
        for word, count in ends.items()
        if word not in targets and word not in _PADS and count >= max(3, lists / 20)
    ]


def _check_padding(
    parts: Sequence[Columns], list_field: str, seq_separator: str, pad: str, described: Callable[[], set[str]]
) -> None:
    """``pad`` is no target. It is padding, not an item, where it stands at the ends of lists only,
    and in a way items do not."""
    widths, padded, telling = set(), 0, False
    first: tuple[Columns, str, int] | None = None
    for part in parts:
        for text, line in zip(part.texts[list_field], part.line, strict=True):
            words = split_list(text, seq_separator)
            widths.add(len(words))
            if pad not in text or pad not in words:
                continue
            places = [k for k, word in enumerate(words) if word != pad]
            if places and pad in words[places[0] : places[-1]]:
                return  # between other items it is one
            padded += 1
            left, right = (places[0], len(words) - 1 - places[-1]) if places else (len(words), 0)
            telling = telling or not places or max(left, right) > 1
            first = first or (part, text, line)
    if first is None or not (telling or len(widths) == 1) or pad in described():
        return
    part, text, line = first
    raise AlkdError(
        f"{part.path}, line {line}: {list_field} {_cut(text)} is padded with {pad}, "
        f"which is no target anywhere ({padded:,} lists "
        f"are padded); allowed: {_form(seq_separator)}"
    )


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
