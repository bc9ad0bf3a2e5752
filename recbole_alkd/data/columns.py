"""RecBole's settings that name columns: whether the columns are there, before anything is trained.

RecBole leaves out what it does not find, or ends in a ``KeyError`` that names no setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_alkd.data.tables import existing, open_table
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.nearest import nearest
from recbole_alkd.settings.stock import interval_words

ROW_FIELD = "alkd_row"  # the number of a row within its part, which this package puts into every batch
# settings that change columns which no session model sees; only their names are looked at
WITHOUT_EFFECT = (
    "threshold",
    "normalize_field",
    "normalize_all",
    "discretization",
    "preload_weight",
    "unused_col",
)
# filters of clicks, which benchmark files are not
FILTERS = (
    "val_interval", "user_inter_num_interval", "item_inter_num_interval", "rm_dup_inter",
    "filter_inter_by_user_or_item",
)  # fmt: skip
_ATOMIC = ("inter", "item", "user")
_OTHERS = ("kg", "link", "net")  # of RecBole's other kinds of models


def check_fields(values: Mapping[str, Any]) -> None:
    """What needs no file: AlkdError where two of the columns that a session model needs have one name, or one
    has none, or where ``seq_len`` has no lengths.

    Args:
        values: all settings.
    """
    named = {"USER_ID_FIELD": values["USER_ID_FIELD"], "ITEM_ID_FIELD": values["ITEM_ID_FIELD"]}
    for key, name in named.items():
        if not name:
            raise AlkdError(f"{key}: {name!r} is not allowed; allowed: the name of a column")
    if not values["LIST_SUFFIX"]:
        raise AlkdError(
            "LIST_SUFFIX: '' is not allowed; allowed: what the column of lists has behind ITEM_ID_FIELD, "
            "such as _list"
        )
    named["LIST_SUFFIX"] = values["ITEM_ID_FIELD"] + values["LIST_SUFFIX"]
    named["ITEM_LIST_LENGTH_FIELD"] = values["ITEM_LIST_LENGTH_FIELD"]
    if values["TIME_FIELD"]:
        named["TIME_FIELD"] = values["TIME_FIELD"]
    elif not values.get("benchmark_filename"):
        raise AlkdError(
            "TIME_FIELD: ~ is not allowed with clicks, which it orders; allowed: the name of a column"
        )
    seen: dict[str, str] = {ROW_FIELD: "this package"}
    for key, name in named.items():
        if name in seen:
            raise AlkdError(f"{key}: {name!r} is the column of {seen[name]} too; allowed: a name of its own")
        seen[name] = key
    for name, length in (values.get("seq_len") or {}).items():
        if not _is_count(length):
            raise AlkdError(f"seq_len: {name}: {length!r} is not allowed; allowed: an integer of at least 1")


def check_order(values: Mapping[str, Any]) -> None:
    """AlkdError where RecBole is to put the clicks of sessions into order without their times."""
    clicks, time = (values.get("load_col") or {}).get("inter", "*"), values.get("TIME_FIELD")
    if isinstance(clicks, (list, tuple)) and time not in clicks:
        raise AlkdError(
            f"load_col: inter: {list(clicks)} lacks TIME_FIELD {time!r}, by which clicks are put into order; "
            "allowed: a list with it, or ~ for all columns"
        )


def check_files(values: Mapping[str, Any], folder: Path, dataset: str) -> None:
    """AlkdError where ``load_col`` or ``unload_col`` names a column, or ``additional_feat_suffix`` a file,
    that is not there.

    Args:
        values: all settings. folder, dataset: where the files are, and what they are called.
    """
    extra = _listed(values.get("additional_feat_suffix"))
    for suffix in extra:
        if suffix in _ATOMIC or existing(folder / f"{dataset}.{suffix}") is None:
            raise AlkdError(
                f"additional_feat_suffix: {suffix!r} is not allowed; "
                f"allowed: the ending of a further file {dataset}.ENDING in "
                f"{str(folder)!r}, other than {', '.join(_ATOMIC)}"
            )
    for key in ("load_col", "unload_col"):
        for suffix, names in (values.get(key) or {}).items():
            if suffix not in (*_ATOMIC, *_OTHERS, *extra):
                raise AlkdError(
                    f"{key}: {suffix!r} is not allowed; allowed: {' | '.join((*_ATOMIC, *_OTHERS, *extra))}"
                )
            if isinstance(names, (list, tuple)):
                _check_file(key, suffix, names, folder, dataset, values)


def _check_file(
    key: str, suffix: str, names: Iterable[Any], folder: Path, dataset: str, values: Mapping[str, Any]
) -> None:
    parts = values.get("benchmark_filename") if suffix == "inter" else None
    for name in [f"{dataset}.{part}.{suffix}" for part in parts] if parts else [f"{dataset}.{suffix}"]:
        path = existing(folder / name)
        if path is None and suffix == "inter":
            return  # the reader of clicks says which files there are
        if path is None:
            raise AlkdError(
                f"{key}: {{{suffix}: {list(names)}}} is not allowed: there is no {name} in {str(folder)!r}"
            )
        with open_table(path, values["field_separator"], values.get("encoding")) as table:
            for column in names:
                _one_of(f"{key}: {suffix}", column, table.columns, f"the columns of {path.name}")


def check_columns(values: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """AlkdError where another setting names a column that is not loaded, or one of a type that it does not
    take.

    Args:
        values: all settings. kinds: loaded column -> RecBole's type.
    """

    def column(key: str, name: Any, *types: str) -> None:
        _one_of(key, name, kinds, "the loaded columns (load_col)")
        if kinds[name] not in types:
            fitting = [other for other, kind in kinds.items() if kind in types]
            raise AlkdError(
                f"{key}: {name!r} is a column of type {kinds[name]}; "
                f"allowed: one of type {' or '.join(types)}"
                + (f" ({', '.join(fitting)})" if fitting else ", of which none is loaded")
            )

    aliases = {key: _listed(values.get(key)) for key in ("alias_of_user_id", "alias_of_item_id")}
    own = {"alias_of_user_id": values["USER_ID_FIELD"], "alias_of_item_id": values["ITEM_ID_FIELD"]}
    for key, names in aliases.items():
        other = next(rest for rest in aliases if rest != key)
        for name in names:
            column(key, name, "token", "token_seq")
            if name in (own[other], *aliases[other]):
                raise AlkdError(f"{key}: {name!r} belongs to {other} too; a column has ids of one kind")
    for name, allowed in (values.get("val_interval") or {}).items():
        column("val_interval", name, "float", "token")
        if (
            name == values["USER_ID_FIELD"]
            and values.get("session_window")
            and not values.get("benchmark_filename")
        ):
            raise AlkdError(
                f"val_interval: {name!r} is not allowed with session_window, which cuts users into sessions"
            )
        _check_interval(name, allowed, kinds[name])
    for name in values.get("seq_len") or {}:
        column("seq_len", name, "token_seq", "float_seq")
    _check_without_effect(values, column)


def _check_without_effect(values: Mapping[str, Any], column: Callable[..., None]) -> None:
    threshold = values.get("threshold")
    if threshold is not None:
        if len(threshold) != 1 or not all(_is_number(value) for value in threshold.values()):
            raise AlkdError(
                f"threshold: {threshold!r} is not allowed; allowed: one column with a number, "
                "such as {rating: 3}"
            )
        column("threshold", next(iter(threshold)), "float")
    if values.get("normalize_field") and values.get("normalize_all"):
        raise AlkdError("normalize_field: not allowed beside normalize_all: True; give one of the two")
    for key in ("normalize_field", "numerical_features"):
        for name in values.get(key) or ():
            column(key, name, "float", "float_seq")
    for name, how in (values.get("discretization") or {}).items():
        column("discretization", name, "float", "float_seq")
        good = isinstance(how, dict) and (
            how.get("method") == "LD" or (how.get("method") == "ED" and _is_count(how.get("bucket")))
        )
        if not good:
            raise AlkdError(
                f"discretization: {name}: {how!r} is not allowed; "
                "allowed: {method: ED, bucket: N} or {method: LD}"
            )
    for token, weight in (values.get("preload_weight") or {}).items():
        column("preload_weight", token, "token")
        column("preload_weight", weight, "float", "float_seq")


def _check_interval(name: str, allowed: Any, kind: str) -> None:
    if kind == "float":
        wrong = (
            interval_words(allowed) if isinstance(allowed, str) else "a text of intervals such as '[5,inf)'"
        )
    else:
        good = (
            isinstance(allowed, (list, tuple))
            and bool(allowed)
            and all(isinstance(value, str) for value in allowed)
        )
        wrong = None if good else "a list of texts, such as ['1', 'b'], because the column is one of tokens"
    if wrong:
        raise AlkdError(f"val_interval: {name}: {allowed!r} is not allowed; allowed: {wrong}")


def _one_of(key: str, name: Any, known: Iterable[str], where: str) -> None:
    known = list(known)
    if name in known:
        return
    close = nearest(str(name), known)
    raise AlkdError(
        f"{key}: no column {name!r}; allowed: {where}: {', '.join(known) or 'none'}"
        + (f" (did you mean {close!r}?)" if close else "")
    )


def _listed(names: Any) -> list[Any]:
    return [names] if isinstance(names, str) else list(names or ())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
