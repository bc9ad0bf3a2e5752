"""The items of a bundle: ids, titles and counts by number, numbers by id, and items by words of their titles.

All of it lies in two mapped arrays of bytes and a few of numbers, so that a catalogue of a million items
costs no more to open than one of ten. Item 0 is the padding.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recbole_alkd.serving.manifest import ITEMS, LOOKUP
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import TensorFile, write_tensors

_COMPARED = 200  # titles that a misspelt one is compared with
_ALIKE = 0.6
_WORDS = 6  # of a misspelt title that are looked for, the longest
_AT_ONCE = 10_000  # titles


class Found(NamedTuple):
    """An item that ``find`` found. ``count``: in how many training sessions it is."""

    item: str
    title: str
    count: int  # type: ignore[assignment]  # tuples have a method of this name


class Items:
    """Look-up over the arrays of ``items.safetensors``.

    ``ids`` and ``titles`` are the UTF-8 bytes of all items one after the other, which end at ``id_ends`` and
    ``title_ends`` (n_items + 1,). ``hashes`` (n_items - 1,) are the CRC-32 of the ids in rising order,
    ``hashed`` whose they are. ``counts`` (n_items,): in how many training sessions each item is; ``popular``,
    the items by falling count and rising number; ``words``, their folded titles in this order, each after a
    line feed, which begin at ``word_starts``.
    """

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self.counts, self.popular = file["counts"], file["popular"]
        self._id_ends, self._title_ends = file["id_ends"], file["title_ends"]
        self._hashes, self._hashed = file["hashes"], file["hashed"]
        self._word_starts = file["word_starts"]
        self._word_ends = np.append(self._word_starts[1:], len(file["words"]))
        for name, ends in (
            ("ids", self._id_ends[-1:]),
            ("titles", self._title_ends[-1:]),
            ("words", self._word_starts[-1:]),
        ):
            if len(ends) and len(file[name]) < ends[0]:
                raise AlkdError(f"{file.file}: {name} end before the last item's; the bundle is damaged")
        self.n_items = len(self.counts)
        sizes = {
            len(self._id_ends) - 1, len(self._title_ends) - 1, len(self._hashes) + 1, len(self._hashed) + 1,
            len(self._word_starts) + 1, len(self.popular) + 1,
        }  # fmt: skip
        if sizes != {self.n_items}:
            counts = sorted(sizes | {self.n_items})
            raise AlkdError(f"{file.file}: its arrays are of {counts} items; the bundle is damaged")

    @classmethod
    def read(cls, folder: Path) -> Items:
        return cls(TensorFile(folder / LOOKUP))

    def id(self, number: int) -> str:
        """The user's own id of an item."""
        return self.ids(np.array([number]))[0]

    def title(self, number: int) -> str:
        """The title of an item, "" without one. Somebody else's text: to be shown, never to be taken for
        markup."""
        return self.titles(np.array([number]))[0]

    def ids(self, numbers: np.ndarray) -> list[str]:
        """``id`` of every item."""
        return self._texts("ids", self._id_ends, numbers)

    def titles(self, numbers: np.ndarray) -> list[str]:
        """``title`` of every item."""
        return self._texts("titles", self._title_ends, numbers)

    def number(self, item: str) -> int | None:
        """The number of an item, None for an id that is not in the catalogue."""
        key = item.encode("utf-8", "replace")
        code = zlib.crc32(key)
        at = int(self._hashes.searchsorted(np.uint32(code)))
        while at < len(self._hashes) and self._hashes[at] == code:
            number = int(self._hashed[at])
            ends = self._id_ends[number : number + 2]
            if self._file.texts("ids", ends[:1], ends[1:])[0] == key:
                return number
            at += 1
        return None

    def numbers(self, items: Sequence[str]) -> np.ndarray:
        """``number`` of every item, (L,) int64, 0 for an unknown one; faster for a whole session."""
        if not items:
            return np.zeros(0, dtype=np.int64)
        keys = [item.encode("utf-8", "replace") for item in items]
        places = self._hashes.searchsorted(np.array([*map(zlib.crc32, keys)], dtype=np.uint32))
        exact = self._hashed.take(places, mode="clip").astype(np.int64)
        known = self._file.texts("ids", self._id_ends[exact], self._id_ends[exact + 1])
        if known != keys:  # some are unknown, or stand behind others with the same hash
            for k, key in enumerate(keys):
                if known[k] != key:
                    exact[k] = self.number(items[k]) or 0
        return exact

    def titled(self, titles: Sequence[str]) -> np.ndarray:
        """The most popular item that has each title, whole and as it is searched (``folded``): (L,) int64
        numbers, 0 where there is none."""
        order, hashes = self._by_title
        numbers = np.zeros(len(titles), dtype=np.int64)
        for k, title in enumerate(titles):
            wanted = f"\n{folded(title)}".encode("utf-8", "replace")
            code = np.uint32(zlib.crc32(wanted))
            at = int(hashes.searchsorted(code))
            while len(wanted) > 1 and at < len(hashes) and hashes[at] == code:
                place = order[at : at + 1]
                if self._file.texts("words", self._word_starts[place], self._word_ends[place])[0] == wanted:
                    numbers[k] = self.popular[place[0]]
                    break
                at += 1
        return numbers

    @cached_property
    def _by_title(self) -> tuple[np.ndarray, np.ndarray]:
        """The places in ``popular`` by the CRC-32 of their folded titles, of equal ones the most popular
        first, and the CRC-32s: 12 bytes an item, made when they are first asked for."""
        hashes = np.zeros(len(self._word_starts), dtype=np.uint32)
        for start in range(0, len(hashes), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            words = self._file.texts("words", self._word_starts[rows], self._word_ends[rows])
            hashes[rows] = [*map(zlib.crc32, words)]
        order = hashes.argsort(kind="stable")
        return order, hashes[order]

    def find(self, text: str, limit: int = 10) -> list[Found]:
        """Items by words of their title or by their id: the most popular that begin with ``text``, then those
        with a word that does, then those that hold it; where there are none, those that look most like it."""
        wanted, matches = folded(text), []
        own = self.number(text)
        if own:
            matches.append(own)
        if wanted:
            for pattern in (f"\n{wanted}", f" {wanted}", wanted):
                if len(matches) >= limit:
                    break
                matches += self._holding(pattern, limit, matches)
            matches = matches or self._like(wanted, limit)
        numbers = np.array(matches[:limit], dtype=np.int64)
        return [
            Found(*one)
            for one in zip(
                self.ids(numbers), self.titles(numbers), self.counts[numbers].tolist(), strict=True
            )
        ]

    def _texts(self, name: str, ends: np.ndarray, numbers: np.ndarray) -> list[str]:
        encoded = self._file.texts(name, ends[numbers], ends[numbers + 1])
        try:
            return [*map(bytes.decode, encoded)]
        except UnicodeDecodeError:  # not written by us
            return [str(text, "utf-8", "replace") for text in encoded]

    def _holding(self, pattern: str, limit: int, known: Iterable[int]) -> list[int]:
        """The most popular other items whose folded title, with a line feed before it, holds the pattern."""
        key, at, known = pattern.encode("utf-8", "replace"), 0, set(known)
        matches: list[int] = []
        while len(matches) < limit and (at := self._file.find("words", key, at)) >= 0:
            place = int(self._word_starts.searchsorted(at, side="right")) - 1
            number = int(self.popular[place])
            if number not in known:
                matches.append(number)
            if place + 1 == len(self._word_starts):
                break
            at = int(self._word_starts[place + 1])
        return matches

    def _like(self, wanted: str, limit: int) -> list[int]:
        """Items whose title looks like a misspelt one: of those that share the beginning of a word with it,
        the nearest."""
        likely: dict[int, None] = {}
        for word in sorted(wanted.split(), key=len, reverse=True)[:_WORDS]:
            for length in range(min(len(word), 8), 2, -1):
                more = self._holding(f" {word[:length]}", _COMPARED, likely) + self._holding(
                    f"\n{word[:length]}", _COMPARED, likely
                )
                likely.update(dict.fromkeys(more))
                if len(likely) >= _COMPARED:
                    break
        near = {one: difflib.SequenceMatcher(None, wanted, folded(self.title(one))).ratio() for one in likely}
        return sorted((one for one in near if near[one] >= _ALIKE), key=lambda one: -near[one])[:limit]


def folded(text: str) -> str:
    """A title as it is searched: one line without case, accents and forms of one letter."""
    if text.isascii():
        return " ".join(text.lower().split())
    plain = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(char for char in plain if not unicodedata.combining(char)).split())


def write_items(folder: Path, ids: Sequence[str], titles: Sequence[str], counts: np.ndarray) -> None:
    """Write ``items.jsonl``, for people and other programs, and the look-up over it.

    Args:
        ids, titles: of the items 1, 2, ...; "" without a title. counts: (n_items,), with the padding's.
    """
    n_items = len(ids) + 1
    if len(titles) != len(ids) or counts.shape != (n_items,) or len(set(ids)) != len(ids):
        raise ValueError(
            f"{len(ids)} ids, {len(set(ids))} of them different, {len(titles)} titles, counts {counts.shape}"
        )
    # a string as JSON; an encoder for each line takes ten times as long
    text = json.encoder.encode_basestring
    with open(folder / ITEMS, "w", encoding="utf-8", errors="replace", newline="\n") as stream:
        for item, title, count in zip(ids, titles, counts[1:].tolist(), strict=True):
            stream.write(f'{{"id": {text(item)}, "title": {text(title)}, "count": {count}}}\n')
    keys = [item.encode("utf-8", "replace") for item in ids]
    hashes = np.array([zlib.crc32(key) for key in keys], dtype=np.uint32)
    order = np.argsort(hashes, kind="stable")
    popular = popular_first(counts)
    words = [("\n" + folded(titles[one - 1])).encode("utf-8", "replace") for one in popular.tolist()]
    names = [title.encode("utf-8", "replace") for title in titles]
    write_tensors(
        folder / LOOKUP,
        {
            "counts": counts.astype(np.int32), "popular": popular,
            "ids": _bytes(keys), "id_ends": _ends([b"", *keys]),
            "titles": _bytes(names), "title_ends": _ends([b"", *names]),
            "hashes": hashes[order], "hashed": (order + 1).astype(np.int32),
            "words": _bytes(words), "word_starts": _ends(words)[:-1],
        },
    )  # fmt: skip


def popular_first(counts: np.ndarray) -> np.ndarray:
    """The items but the padding by falling count and rising number, (n_items - 1,) int32."""
    return (np.argsort(-counts[1:].astype(np.int64), kind="stable") + 1).astype(np.int32)


def _bytes(parts: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def _ends(parts: Sequence[bytes]) -> np.ndarray:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)
