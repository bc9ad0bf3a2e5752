"""Partial counts: what one part of the clicks says of pairs of items (``pairs.py``), as one file that can be
added to others.

A file of counts is a safetensors file with the ids of its items in rising order of their UTF-8 bytes
(``ids``, ``id_ends``), in how many sessions each is (``sessions``), and the counts of pairs, sorted by item,
following item and gap (``start``, ``target``, ``gap``, ``count``); items are numbered from 0. ``facts`` says
under which settings and from which parts it was counted, and has a checksum of every array. Files of
different parts have different items. Since all have them in the same order, a range of items of the sum needs
one piece of each, and the sum of any number of files takes the memory of a range.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from recbole_alkd.data.pairs import Keys, PairCounts, narrowed, unpacked
from recbole_alkd.data.work_folder import work_folder
from recbole_alkd.files import whole_file
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import TensorFile

FORMAT, VERSION = "recbole_alkd counts", 1
ENDING = ".counts.safetensors"
WHOLE = "file of counts"
# The arrays of a file, in their order: the wide ones first, so that all of them stand where the processor
# likes them.
_DTYPES = {
    "facts_crc32": "I64",
    "id_ends": "I64",
    "sessions": "I64",
    "start": "I64",
    "target": "I32",
    "count": "U32",
    "gap": "U8",
    "ids": "U8",
    "facts": "U8",
}
_NUMPY = {"I64": np.int64, "I32": np.int32, "U32": np.uint32, "U8": np.uint8}
_BLOCK = 1 << 22  # entries that are checked together


@dataclass(frozen=True)
class CountSettings:
    """What decides how sessions are counted. Only counts of the same settings can be added.

    Attributes:
        last_items: so many of a session's newest items are counted; None: all. longest: places after a place
            that it counts with.
        min_length: sessions with fewer items are left out. window: seconds of a session; None: the column is
            the session.
    """

    last_items: int | None = 20
    longest: int = 19
    min_length: int = 2
    window: int | None = None


@dataclass(frozen=True)
class Part:
    """A part of the clicks. name: of its file. fingerprint: of its sessions, in any order. clicks, sessions:
    that were counted.
    """

    name: str
    fingerprint: str
    clicks: int
    sessions: int


@dataclass(frozen=True)
class PartialCounts:
    """Counts of some sessions, in memory or mapped from a file.

    Attributes:
        ids: of the items, rising. sessions: (n_items,) int64, in how many sessions each is. pairs: of items
            numbered from 0.
        settings: how it was counted. parts: of which clicks. file: where it was read from.
    """

    ids: Sequence[str]
    sessions: np.ndarray
    pairs: PairCounts
    settings: CountSettings
    parts: tuple[Part, ...]
    file: Path | None = None

    @property
    def how(self) -> Keys:
        return Keys(len(self.ids), self.settings.longest)

    def write(self, file: Path) -> Path:
        """Write it, whole or not at all."""
        with CountsWriter.open(file, self.ids, self.sessions, self.settings, self.parts) as writer:
            writer.put(self.pairs)
        return file

    @classmethod
    def read(cls, file: Path, verify: bool = True) -> PartialCounts:
        """The counts of a file, mapped.

        Args:
            verify: whether every byte is compared with its checksum.

        Raises:
            AlkdError: no file of counts, one of another version, or a damaged one; it names the file.
        """
        if not file.is_file():
            raise AlkdError(
                f"{file}: no such file; allowed: a file of counts, as `recbole-alkd count` writes it"
            )
        arrays = TensorFile(file, WHOLE)
        facts = _facts(arrays)
        damaged = AlkdError(f"{file}: its arrays do not fit each other; the {WHOLE} is damaged")
        try:
            parts = tuple(Part(**one) for one in facts["parts"])
            settings, sums = CountSettings(**facts["settings"]), facts["crc32"]
            by_name = {name: arrays[name] for name in _DTYPES if not name.startswith("facts")}
        except (KeyError, TypeError, ValueError):
            raise damaged from None
        if any(array.dtype != _NUMPY[_DTYPES[name]] or array.ndim != 1 for name, array in by_name.items()):
            raise damaged
        items, entries = len(by_name["sessions"]), len(by_name["target"])
        sizes = {"id_ends": items + 1, "start": items + 1, "gap": entries, "count": entries}
        if any(len(by_name[name]) != size for name, size in sizes.items()) or not settings.longest <= 256:
            raise damaged
        for name, top in (("start", entries), ("id_ends", len(by_name["ids"]))):
            ends = by_name[name]
            if ends[0] != 0 or ends[-1] != top or (np.diff(ends) < 0).any():
                raise damaged
        if verify:
            for name, array in by_name.items():
                if zlib.crc32(array.data) != sums.get(name):
                    raise AlkdError(
                        f"{file}: the checksum of {name!r} is another; the {WHOLE} is damaged or was changed"
                    )
            for begin in range(0, entries, _BLOCK):
                target, gap = (by_name[name][begin : begin + _BLOCK] for name in ("target", "gap"))
                if target.min() < 0 or target.max() >= items or gap.max() >= settings.longest:
                    raise damaged
        text, ends = by_name["ids"].tobytes(), by_name["id_ends"].tolist()
        try:
            ids = [text[a:b].decode("utf-8") for a, b in pairwise(ends)]
        except UnicodeDecodeError:
            raise damaged from None
        if any(a >= b for a, b in pairwise(ids)):
            raise damaged
        pairs = PairCounts(by_name["start"], by_name["target"], by_name["gap"], by_name["count"])
        return cls(ids, by_name["sessions"], pairs, settings, parts, file)


class CountsWriter:
    """Writes a file of counts range by range; ``open`` gives one."""

    def __init__(self, work: Path, how: Keys) -> None:
        self._how, self._next = how, 0
        self._rows = np.zeros(how.n_items, dtype=np.int64)
        self._names = ("target", "count", "gap")
        self._files = {name: work / name for name in self._names}
        self._streams: dict[str, BinaryIO] = {
            name: open(file, "xb")  # noqa: SIM115
            for name, file in self._files.items()
        }
        self._sums, self.sizes = dict.fromkeys(self._names, 0), dict.fromkeys(self._names, 0)

    @classmethod
    @contextmanager
    def open(
        cls,
        file: Path,
        ids: Sequence[str],
        sessions: np.ndarray,
        settings: CountSettings,
        parts: Iterable[Part],
    ) -> Iterator[CountsWriter]:
        """A writer of all items in rising order; the file is there, whole, when the block ends well."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(file) as work:
            writer = cls(work, Keys(len(ids), settings.longest))
            try:
                yield writer
            finally:
                for stream in writer._streams.values():
                    stream.close()
            texts = [one.encode("utf-8") for one in ids]
            arrays: dict[str, np.ndarray] = {
                "id_ends": np.cumsum([0, *map(len, texts)], dtype=np.int64),
                "sessions": np.asarray(sessions, dtype=np.int64),
                "start": np.append(0, np.cumsum(writer._rows)).astype(np.int64),
                "ids": np.frombuffer(b"".join(texts), dtype=np.uint8),
            }
            writer._assemble(file, arrays, settings, parts)

    def add(self, begin: int, end: int, keys: np.ndarray, counts: np.ndarray) -> None:
        """A range of items, as ``pairs.added`` yields it; ranges come one after the other."""
        source, target, gap = unpacked(keys, self._how)
        self._rows[begin:end] = np.bincount(source - begin, minlength=end - begin)
        self._write(target, narrowed(counts), gap)

    def put(self, pairs: PairCounts) -> None:
        """The counts of all items."""
        self._rows[:] = np.diff(pairs.start)
        for begin in range(0, len(pairs.target), _BLOCK):
            self._write(*(one[begin : begin + _BLOCK] for one in (pairs.target, pairs.count, pairs.gap)))

    def _write(self, target: np.ndarray, count: np.ndarray, gap: np.ndarray) -> None:
        for name, array in (("target", target), ("count", count), ("gap", gap)):
            content = array.tobytes()
            self._sums[name] = zlib.crc32(content, self._sums[name])
            self.sizes[name] += len(content)
            self._streams[name].write(content)

    def _assemble(
        self, file: Path, arrays: dict[str, np.ndarray], settings: CountSettings, parts: Iterable[Part]
    ) -> None:
        sums = self._sums | {name: zlib.crc32(array.data) for name, array in arrays.items()}
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "settings": vars(settings),
            "parts": [vars(part) for part in parts],
            "crc32": sums,
        }
        text = json.dumps(facts).encode()
        arrays = arrays | {
            "facts": np.frombuffer(text, dtype=np.uint8),
            "facts_crc32": np.array([zlib.crc32(text)], dtype=np.int64),
        }
        header, at = {}, 0
        for name, dtype in _DTYPES.items():
            size = arrays[name].nbytes if name in arrays else self.sizes[name]
            shape = [size // np.dtype(_NUMPY[dtype]).itemsize]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with whole_file(file) as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for name in _DTYPES:
                if name in arrays:
                    stream.write(arrays[name].data)
                else:
                    with open(self._files[name], "rb") as part:
                        shutil.copyfileobj(part, stream, 1 << 20)


def _facts(arrays: TensorFile) -> Mapping[str, Any]:
    foreign = AlkdError(
        f"{arrays.file}: a safetensors file, and none of counts; allowed: what `recbole-alkd count` writes"
    )
    if "facts" not in arrays.arrays:
        raise foreign
    try:
        facts = json.loads(arrays["facts"].tobytes())
    except (ValueError, RecursionError):
        raise AlkdError(
            f"{arrays.file}: its facts are not readable as JSON; the {WHOLE} is damaged"
        ) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise foreign
    if arrays["facts_crc32"].tolist() != [zlib.crc32(arrays["facts"].data)]:
        raise AlkdError(
            f"{arrays.file}: the checksum of its facts is another; the {WHOLE} is damaged or was changed"
        )
    if facts.get("version") != VERSION:
        raise AlkdError(
            f"{arrays.file}: counts of version {facts.get('version')!r}; this package reads {VERSION}: "
            "count anew"
        )
    return facts
