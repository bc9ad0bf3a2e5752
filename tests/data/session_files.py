"""Click files and the rows made of them, read without the code under test."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

Row = tuple[str, list[str], str]  # session, history, target


BENCHMARK = {
    "USER_ID_FIELD": "session_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"],
    "benchmark_filename": ["train", "valid", "test"],
}


def write_inter(
    path: Path,
    clicks: Iterable[Iterable[object]],
    header: str = "user_id:token\titem_id:token\ttimestamp:float",
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(str(value) for value in click) for click in clicks)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_rows(folder: Path, part: str) -> list[Row]:
    """The rows of one written part, parsed here by hand."""
    lines = (folder / f"{folder.name}.{part}.inter").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    return [(session, history.split(" "), target) for session, history, target in rows]


def token_rows(part: Any) -> list[Row]:
    """The rows of a built part, in tokens."""
    feat, items = part.inter_feat, part.field2id_token[part.iid_field]
    sessions = part.id2token(part.uid_field, feat[part.uid_field].numpy())
    lists = feat[part.iid_field + "_list"].numpy()
    lengths, targets = feat["item_length"].numpy(), feat[part.iid_field].numpy()
    return [
        (str(s), list(items[row[:n]]), str(items[t]))
        for s, row, n, t in zip(sessions, lists, lengths, targets, strict=True)
    ]


def shared_data(name: str) -> Path:
    """A data set beside the project, or a skip."""
    root = Path(
        os.environ.get("RECBOLE_ALKD_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data")
    )
    path = root / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set RECBOLE_ALKD_DATA to the folder with the data sets")
    return path
