"""Labels between a store and files: JSON Lines and Parquet."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recbole_alkd.files import json_line, whole_path
from recbole_alkd.labels.cost import read_cost
from recbole_alkd.labels.label import Label, read_time, to_row
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError

_PAGE = 2000  # labels in one transaction or one Parquet row group
_FIELDS = tuple(field.name for field in dataclasses.fields(Label))


def export_labels(store: LabelStore, file: Path, status: str | None = None) -> int:
    """Write the labels to ``file``: JSON Lines (.jsonl) or Parquet (.parquet, needs pyarrow). How many.

    The file appears when it is complete. Every label keeps all fields of ``Label``;
    in Parquet ``repairs`` is JSON.
    """
    writer = _by_suffix(file, {".jsonl": _write_jsonl, ".parquet": _write_parquet})
    labels = (label for label in store if status in (None, label.status))
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_path(file) as part:
        return int(writer(part, labels))


def import_labels(store: LabelStore, file: Path) -> tuple[int, int]:
    """Put the labels of a file that ``export_labels`` wrote into the store.
    (read, stored): a key that exists stays.

    Raises:
        AlkdError: a line that is no label. Nothing of the file is stored then.
    """
    reader = _by_suffix(file, {".jsonl": _read_jsonl, ".parquet": _read_parquet})
    for _ in reader(file):  # all of it is checked first
        pass
    return put_all(store, reader(file))


def put_all(store: LabelStore, labels: Iterable[Label]) -> tuple[int, int]:
    """Put ``labels`` into the store, in pages. (read, stored): a key that exists stays."""
    read = stored = 0
    rest = iter(labels)
    while page := list(islice(rest, _PAGE)):
        read, stored = read + len(page), stored + store.put_many(page)
    return read, stored


def _by_suffix(file: Path, known: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return known[file.suffix.lower()]
    except KeyError:
        raise AlkdError(
            f"file {str(file)!r}: its name ends with {file.suffix!r}; allowed: {' | '.join(known)}"
        ) from None


def _write_jsonl(file: Path, labels: Iterable[Label]) -> int:
    count = 0
    with file.open("w", encoding="utf-8") as stream:
        for label in labels:
            stream.write(json_line(dataclasses.asdict(label)))
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
