"""Looking into a label store, and moving labels between stores and files. ``recbole-alkd store`` is made of these."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from recbole_alkd.files import whole_path
from recbole_alkd.labels.cost import read_cost
from recbole_alkd.labels.damage import repair, verify
from recbole_alkd.labels.hints import all_hints, put_hints
from recbole_alkd.labels.label import Label, read_time, to_row
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError

__all__ = [
    "Line",
    "TeacherStats",
    "count_of_teacher",
    "export_labels",
    "import_labels",
    "list_labels",
    "merge",
    "open_existing",
    "repair",
    "stats",
    "verify",
]

_PAGE = 2000  # labels in one transaction or one Parquet row group
_LINES = 2000  # of a listing that are read at once
_FIELDS = tuple(field.name for field in dataclasses.fields(Label))


class Line(NamedTuple):
    """A label without its answer, for listings."""

    key: str
    status: str
    teacher: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    usd: float | None
    time: float | None


_line: Callable[[tuple[Any, ...]], Line] = partial(tuple.__new__, Line)  # half of the time of Line(*row), a million times


@dataclass(frozen=True)
class TeacherStats:
    """What one teacher's labels took. ``replaced``: failed labels that an ok one has replaced, and ``hints``: requests for
    hints; the cost of both is included."""

    teacher: str
    ok: int
    failed: int
    replaced: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    usd: float | None
    first: float | None
    last: float | None
    hints: int = 0


def list_labels(store: LabelStore, status: str | None = None, teacher: str | None = None) -> Iterator[Line]:
    """The labels in the order in which they were stored.

    Args:
        status: only these ("ok" or "failed").
        teacher: only those whose teacher's name holds this text.
    """
    where = ""
    values: list[str] = []
    if status is not None:
        where, values = f"{where} AND status = ?", [*values, status]
    if teacher is not None:
        where, values = f"{where} AND instr((SELECT name FROM teachers WHERE id = teacher), ?)", [*values, teacher]
    sql = f"""SELECT key, status, (SELECT name FROM teachers WHERE id = teacher), prompt_tokens, completion_tokens, seconds, usd,
        time FROM labels WHERE id > ?{where} ORDER BY id LIMIT {_LINES}"""
    last = 0
    page: list[Any] = [()]
    with store.reader() as db:
        while page:
            db.execute("BEGIN")  # one view of the store: a label may be replaced, under another id, in the meantime
            page = db.execute(sql, [last, *values]).fetchall()
            if page:
                ((last,),) = db.execute("SELECT id FROM labels WHERE key = ?", page[-1][:1])
            db.execute("COMMIT")
            yield from map(_line, page)


def count_of_teacher(path: Path, beginning: str) -> int:
    """How many usable labels the store in ``path`` has of teachers whose names begin so; 0 without a readable store."""
    if not path.is_file():
        return 0
    sql = """SELECT count(*) FROM labels WHERE status = 'ok'
        AND substr((SELECT name FROM teachers WHERE id = teacher), 1, ?) = ?"""
    try:
        with LabelStore(path) as store:
            return int(store.query(sql, (len(beginning), beginning))[0][0])
    except (AlkdError, sqlite3.Error):
        return 0


def stats(store: LabelStore) -> list[TeacherStats]:
    """What the labels of every teacher took, the teacher with the most labels first."""
    rows = store.query(
        """SELECT name, sum(status = 'ok'), sum(status = 'failed'), sum(status = 'replaced'), sum(prompt_tokens),
            sum(completion_tokens), sum(seconds), sum(usd), min(time), max(time), sum(status = 'hints')
        FROM (
            SELECT teacher, status, prompt_tokens, completion_tokens, seconds, usd, time FROM labels UNION ALL
            SELECT teacher, 'replaced', prompt_tokens, completion_tokens, seconds, usd, time FROM failures UNION ALL
            SELECT teacher, 'hints', prompt_tokens, completion_tokens, seconds, usd, time FROM hints
        ) JOIN teachers ON teachers.id = teacher GROUP BY teacher ORDER BY count(*) DESC, name"""
    )
    return [TeacherStats(*row) for row in rows]


# -- files ---------------------------------------------------------------------------------------------------------------


def export_labels(store: LabelStore, file: Path, status: str | None = None) -> int:
    """Write the labels to ``file``: JSON Lines (.jsonl) or Parquet (.parquet, needs pyarrow). How many.

    The file appears when it is complete. Every label keeps all fields of ``Label``; in Parquet ``repairs`` is JSON.
    """
    writer = _by_suffix(file, {".jsonl": _write_jsonl, ".parquet": _write_parquet})
    labels = (label for label in store if status in (None, label.status))
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_path(file) as part:
        return writer(part, labels)


def import_labels(store: LabelStore, file: Path) -> tuple[int, int]:
    """Put the labels of a file that ``export_labels`` wrote into the store. (read, stored): a key that exists stays.

    Raises:
        AlkdError: a line that is no label. Nothing of the file is stored then.
    """
    reader = _by_suffix(file, {".jsonl": _read_jsonl, ".parquet": _read_parquet})
    for _ in reader(file):  # all of it is checked first
        pass
    return _put_all(store, reader(file))


def merge(store: LabelStore, other: LabelStore) -> tuple[int, int]:
    """Put the labels and hints of ``other`` into ``store``. (read, stored) labels: a key that exists stays, unless only
    ``other``'s is ok."""
    counts = _put_all(store, other)
    for hints in all_hints(other):
        put_hints(store, hints)
    rows = other.query(
        """SELECT name, key, prompt_tokens, completion_tokens, seconds, usd, time, raw
        FROM failures JOIN teachers ON teachers.id = teacher"""
    )
    with store.transaction() as db:
        for name, *row in rows:
            db.execute("INSERT OR IGNORE INTO teachers (name) VALUES (?)", [name])
            db.execute(
                """INSERT INTO failures (teacher, key, prompt_tokens, completion_tokens, seconds, usd, time, raw)
                SELECT id, ?1, ?2, ?3, ?4, ?5, ?6, CAST(?7 AS TEXT) FROM teachers WHERE name = ?8
                AND NOT EXISTS (SELECT 1 FROM failures WHERE key = ?1 AND time IS ?6 AND raw = CAST(?7 AS TEXT))""",
                [*row[:-1], row[-1].encode("utf-8", "surrogatepass"), name],
            )
    return counts


def _put_all(store: LabelStore, labels: Iterable[Label]) -> tuple[int, int]:
    read = stored = 0
    rest = iter(labels)
    while page := list(islice(rest, _PAGE)):
        read, stored = read + len(page), stored + store.put_many(page)
    return read, stored


def _by_suffix(file: Path, known: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return known[file.suffix.lower()]
    except KeyError:
        raise AlkdError(f"file {str(file)!r}: its name ends with {file.suffix!r}; allowed: {' | '.join(known)}") from None


def _write_jsonl(file: Path, labels: Iterable[Label]) -> int:
    count = 0
    with file.open("w", encoding="utf-8") as stream:
        for label in labels:
            # ASCII, so that half a surrogate pair in an answer survives
            stream.write(json.dumps(dataclasses.asdict(label)) + "\n")
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    return count


def _read_jsonl(file: Path) -> Iterator[Label]:
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _from_text(f"{file}, line {number}", line)
    except (OSError, UnicodeDecodeError) as error:
        raise AlkdError(f"file {str(file)!r} cannot be read: {error}") from None


def _from_text(place: str, text: str) -> Label:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AlkdError(f"{place}: not readable as JSON: {error}") from None
    return _from_values(place, values)


def _from_values(place: str, values: Any) -> Label:
    if not isinstance(values, dict) or not {"key", "ranking"} <= values.keys() <= set(_FIELDS):
        raise AlkdError(f"{place}: no label; needed are key and ranking, allowed: {', '.join(_FIELDS)}")
    texts = [values.get("raw", ""), values.get("teacher", "")]
    good = (
        all(isinstance(part, list) for part in (values["ranking"], values.get("candidates", [])))
        and all(isinstance(text, str) for text in texts)
        and isinstance(values.get("repairs", {}), dict)
    )
    if not good:
        raise AlkdError(f"{place}: a value is of the wrong type")
    # a ranking is worth its price without them: what is no number is unknown
    cost = read_cost(*(values.get(name) for name in ("prompt_tokens", "completion_tokens", "seconds", "usd")))
    numbers = {**vars(cost), "time": read_time(values.get("time"))}
    try:
        label = Label(**{**values, **numbers})
        to_row(label)
        return label
    except AlkdError as error:
        raise AlkdError(f"{place}: {error}") from None


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise AlkdError("Parquet files need pyarrow: pip install pyarrow; or use a .jsonl file") from None
    return pyarrow


def _write_parquet(file: Path, labels: Iterable[Label]) -> int:
    pyarrow = _pyarrow()
    text, count, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    types = {
        **dict.fromkeys(("key", "raw", "repairs", "status", "teacher"), text),
        **dict.fromkeys(("ranking", "candidates"), pyarrow.list_(text)),
        **dict.fromkeys(("prompt_tokens", "completion_tokens"), count),
        **dict.fromkeys(("seconds", "usd", "time"), real),
    }
    schema, rest, total = pyarrow.schema([(name, types[name]) for name in _FIELDS]), iter(labels), 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while page := list(islice(rest, _PAGE)):
            rows = []
            for label in page:
                # Arrow's text is valid UTF-8; half a surrogate pair becomes a question mark
                raw = label.raw.encode("utf-8", "replace").decode()
                rows.append({**vars(label), "raw": raw, "repairs": json.dumps(label.repairs)})
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            total += len(page)
    return total


def _read_parquet(file: Path) -> Iterator[Label]:
    pyarrow = _pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(_PAGE):
                for values in batch.to_pylist():
                    number += 1
                    place = f"{file}, row {number}"
                    try:
                        repairs = json.loads(values.get("repairs") or "{}")
                    except ValueError as error:
                        raise AlkdError(f"{place}: repairs: not readable as JSON: {error}") from None
                    yield _from_values(place, {**values, "repairs": repairs})
    except (OSError, pyarrow.ArrowException) as error:
        raise AlkdError(f"file {str(file)!r} cannot be read: {error}") from None


def open_existing(path: Path) -> LabelStore:
    """The store at ``path``; AlkdError where there is none, in place of a new one."""
    if path.exists() and not path.is_file():
        raise AlkdError(f"label_store: {str(path)!r} is a folder; give the file in it")
    if not path.is_file():
        raise AlkdError(f"label_store: there is no file {str(path)!r}")
    return LabelStore(path)
