"""New sessions and items for a table that is served: counted, weighed and cut anew, the old sessions not read
again."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.data.count_sessions import count_sessions
from recbole_alkd.data.reading import read_clicks
from recbole_alkd.data.rows import cut_sessions, session_codes, window_index
from recbole_alkd.data.sum_counts import Sum
from recbole_alkd.data.tables import checked_id, existing, open_table
from recbole_alkd.data.titles import read_titles
from recbole_alkd.llm.text_vectors import text_vectors
from recbole_alkd.model.edges import nearest_edges
from recbole_alkd.model.table_made import EdgeSet, grown
from recbole_alkd.model.text_axes import in_axes
from recbole_alkd.serving.card import card
from recbole_alkd.serving.items import write_items
from recbole_alkd.serving.make_counts import TEXT, TEXT_NEIGHBORS, TableCounts, numbers, write_reasons
from recbole_alkd.serving.manifest import CARD, ONNX, STUDENT, read_manifest, write_bundle_folder
from recbole_alkd.serving.onnx_model import write_onnx
from recbole_alkd.serving.recommender import Recommender
from recbole_alkd.serving.students import Table
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TextSettings
from recbole_alkd.settings.rules import is_vector_file
from recbole_alkd.tensors import write_tensors

# settings of titles that are followed here, and the beginnings of those that have no part in edges
_AXES = ("item_text_whiten", "item_text_dim")
_TEXT = {"item_text", "item_text_layer", "item_text_neighbors", "item_text_similarity", *_AXES}
_NOT_EDGES = ("serve_text", "item_text_loss", "item_text_config")


def update(bundle: str | Path, inter: str | Path, out: str | Path, titles: str | Path | None = None) -> Path:
    """Add new sessions to the table of a bundle.

    The new bundle's table is the one that all sessions give at once under the settings that the old one was
    fitted with. Settings and weights of edges are not chosen again, and its metrics are still those of the
    old one.

    Args:
        bundle: of a table, or the folder of a run that has one.
        inter: whole sessions that the table does not hold yet: clicks, or rows of (session, history, item),
            in the columns that its run read. Items that are new come behind those of the bundle.
        out: a folder that is not there.
        titles: an ``.item`` file with the titles of new items; the one beside ``inter`` where there is one.

    Raises:
        AlkdError: no table; a bundle without ``counts.npz``; a file that cannot be read; no session in it.
    """
    recommender, source, out = Recommender.load(bundle, verify=True), Path(inter), Path(out)
    place, manifest = recommender.path, recommender.manifest
    student = recommender.student
    if not isinstance(student, Table):
        raise AlkdError(
            f"{place}: {manifest['student']['backbone']} is no table; "
            "only a table takes new sessions without "
            "training"
        )
    counts = TableCounts.read(place, str(manifest["student"].get("no_counts", "export its run again")))
    known = recommender.items.ids(np.arange(1, student.n_items))
    number = {item: k for k, item in enumerate(known, 1)}
    keys, sessions = read_keyed_sessions(source, counts.fields)
    new = [
        item for item in dict.fromkeys(item for session in sessions for item in session) if item not in number
    ]
    number.update((item, k) for k, item in enumerate(new, len(known) + 1))
    named = _new_titles(source, titles, counts.fields, new)
    shown = [*recommender.items.titles(np.arange(1, student.n_items)), *(named.get(item, "") for item in new)]
    notes: list[str] = []
    numbered = [[number[item] for item in session] for session in sessions]
    counts = added(counts, numbered, len(number) + 1, [*known, *new], keys, source.name)
    if any(named.get(item) for item in new):
        counts = _with_title_edges(counts, shown, notes)
    table = counts.table
    facts = {**manifest["student"], "items": len(number), "edges": table.nnz}

    def fill(folder: Path) -> None:
        rows = {"indptr": table.indptr.astype(np.int32), "indices": table.indices.astype(np.int32)}
        weights = table.data.astype(np.float16)
        write_tensors(folder / STUDENT, {**rows, "weights": weights, "recency": np.array(student.recency)})
        write_items(folder, [*known, *new], shown, counts.counts)
        counts.write(folder)
        write_reasons(folder, counts)
        if (place / ONNX).exists():
            write_onnx(folder, facts, len(number) + 1)
        (folder / CARD).write_text(card(content), encoding="utf-8")

    entry = {
        "sessions": len(sessions),
        "new_items": len(new),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    content = {
        key: value for key, value in read_manifest(place).items() if key not in ("format", "version", "files")
    }
    content |= {"student": facts, "updates": [*content.get("updates", []), {**entry, "notes": notes}]}
    content["dataset"] = {
        **content.get("dataset", {}),
        "training_sessions": counts.sessions,
        "items": len(number),
    }
    return write_bundle_folder(out, content, fill)


def added(
    counts: TableCounts, sessions: Sequence[Sequence[int]], n_items: int, ids: Sequence[str] | None = None,
    keys: Sequence[str] | None = None, name: str = "update",
) -> TableCounts:  # fmt: skip
    """The counts of all sessions, from those of the old ones and the new ones by numbers of ``n_items``
    items: one more partial count.

    Args:
        ids, keys: of items and new sessions, as ``TableCounts.of`` has them. name: of the new part.

    Raises:
        AlkdError: sessions that were added before.
    """
    flat = np.array([item for session in sessions for item in session], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, sessions)])
    ids = [str(k) for k in range(1, n_items)] if ids is None else ids
    keys = [f"{name}-{k}" for k in range(len(sessions))] if keys is None else keys
    more = count_sessions(flat - 1, offsets, ids, keys, counts.partial.settings, name)
    partial = Sum([counts.partial, more]).counts()
    sets = []
    for one in counts.made.sets:
        edges = grown(one.edges, n_items)
        together = None if one.together is None else grown(one.together, n_items)
        sets.append(EdgeSet(one.name, edges, together, one.weight, one.most))
    made = dataclasses.replace(counts.made, sets=tuple(sets))
    return dataclasses.replace(
        counts, partial=partial, number=numbers(partial, ids), n_items=n_items, made=made
    )


def read_sessions(path: Path, fields: dict[str, Any]) -> list[list[str]]:
    """The sessions of a file of clicks or of (session, history, item) rows, items oldest first."""
    return read_keyed_sessions(path, fields)[1]


def read_keyed_sessions(path: Path, fields: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """``read_sessions``, and the id of each session.

    Raises:
        AlkdError: no such columns, a row that cannot be read, no session of ``min_length`` items.
    """
    with open_table(path) as table:
        listed = fields["list"] in table.columns
        if not listed and fields["time"] not in table.columns:
            need = f"{fields['session']}, {fields['item']} and {fields['time']} (clicks)"
            need += f", or {fields['list']} (sessions)"
            raise AlkdError(f"{path}: it has {', '.join(table.columns)}; needed: {need}")
    sessions = _listed(path, fields) if listed else _clicked(path, fields)
    sessions = {key: session for key, session in sessions.items() if len(session) >= fields["min_length"]}
    if not sessions:
        raise AlkdError(f"{path}: no session of {fields['min_length']} items in it")
    return list(sessions), list(sessions.values())


def _listed(path: Path, fields: dict[str, Any]) -> dict[str, list[str]]:
    """Of several rows of one session, its prefixes, the longest is the session."""
    longest: dict[str, list[str]] = {}
    with open_table(path) as table:
        at_session, at_list = (
            table.index(fields["session"], "the session"),
            table.index(fields["list"], "the history"),
        )
        at_item = table.index(fields["item"], "the item")
        for line, row in table.rows:
            session, item = (checked_id(row[at], path, line) for at in (at_session, at_item))
            history = [checked_id(one, path, line) for one in row[at_list].split()]
            if not session or not item or not history:
                raise AlkdError(f"{path}, line {line}: a row without session, history or item")
            if len(history) + 1 > len(longest.get(session, ())):
                longest[session] = [*history, item]
    return longest


def _clicked(path: Path, fields: dict[str, Any]) -> dict[str, list[str]]:
    clicks = read_clicks(path, fields["session"], fields["item"], fields["time"], fields["time_unit"])
    window = fields["window"]
    windows = (
        np.zeros_like(clicks.time)
        if window is None
        else window_index(clicks.time, window, fields["time_unit"])
    )
    sessions = cut_sessions(session_codes(clicks.user, windows), clicks.time)
    items = [clicks.items[code] for code in clicks.item[sessions.rows]]
    ends = sessions.offsets.tolist()
    first = sessions.rows[sessions.offsets[:-1]].tolist()
    keys = [f"{clicks.users[clicks.user[row]]}@{windows[row]}" for row in first]
    return {key: items[begin:end] for key, (begin, end) in zip(keys, pairwise(ends), strict=True)}


def _new_titles(
    source: Path, titles: str | Path | None, fields: dict[str, Any], new: Sequence[str]
) -> dict[str, str]:
    """Titles of new items."""
    stem = source.name.removesuffix(".gz").removesuffix(".xz").removesuffix(".inter")
    file = Path(titles) if titles else existing(source.with_name(f"{stem}.item"))
    if file is None or not new:
        return {}
    title_of, _ = read_titles(file, fields["item"], fields["title_field"])
    return title_of


def _with_title_edges(counts: TableCounts, titles: Sequence[str], notes: list[str]) -> TableCounts:
    """The counts with edges between the titles of all items, where the table has edges of titles."""
    if not any(one.name in (TEXT, TEXT_NEIGHBORS) and one.weight for one in counts.made.sets):
        return counts
    text = counts.text
    usual = TextSettings().flat()
    changed = (key for key, value in text.items() if key not in _TEXT and value != usual.get(key))
    other = sorted(key for key in changed if not key.startswith(_NOT_EDGES))
    folder = tempfile.mkdtemp()
    try:
        if other:
            raise AlkdError(f"{', '.join(other)} is not followed here")
        if is_vector_file(text["item_text"]):
            raise AlkdError(f"item_text: {text['item_text']} is not read here")
        named = [k for k, title in enumerate(titles, 1) if title]
        made = text_vectors(
            [titles[k - 1] for k in named], text["item_text"], text["item_text_layer"], Path(folder)
        )
    except AlkdError as error:
        notes.append(f"titles of new items made no edges: {error}")
        return counts
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    vectors = np.zeros((len(titles) + 1, made.vectors.shape[1]), dtype=np.float32)
    vectors[named] = made.vectors
    vectors = in_axes(vectors, TextSettings(**{key: text[key] for key in _AXES if key in text}))
    edges = nearest_edges(vectors, text["item_text_neighbors"], text["item_text_similarity"])
    sets = tuple(
        dataclasses.replace(one, edges=edges) if one.name == TEXT else one for one in counts.made.sets
    )
    return dataclasses.replace(counts, made=dataclasses.replace(counts.made, sets=sets))
