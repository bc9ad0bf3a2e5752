"""Settings that come with a data set: the file that ``recbole-alkd sessions`` leaves beside the data,
and the ones we ship.

They apply where they match the files. Somebody else's data set of the same name has other columns,
and other sessions.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from recbole_alkd.data.tables import existing, open_table
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import SESSION_KEYS
from recbole_alkd.settings.text import read_yaml_file

# What a file beside the data may say: how it is read, and what a session is.
# Nothing of it names a path or runs anything.
DATA_KEYS = (
    "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "load_col", "alias_of_item_id", "benchmark_filename",
    "field_separator",
    "seq_separator", "encoding", "MAX_ITEM_LIST_LENGTH", *SESSION_KEYS,
)  # fmt: skip

SETTINGS_HEADER = (
    "# Written by `recbole-alkd`: how these files are read. A run on this data set finds it by itself.\n"
)


@dataclass(frozen=True)
class DataSettings:
    """What applies to a data set: the settings, and what the log should say about them, as pairs (level,
    text)."""

    values: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[tuple[int, str], ...] = ()


def check_dataset_name(dataset: Any) -> None:
    """AlkdError unless ``dataset`` is the name of a folder; runs, logs and checkpoints are named after it."""
    good = isinstance(dataset, str) and dataset.strip() == dataset and dataset not in ("", ".", "..")
    if not good or any(char in "/\\" or unicodedata.category(char) == "Cc" for char in dataset):
        raise AlkdError(
            f"dataset: {dataset!r} is not allowed; allowed: the name of a data set, "
            "without a path (that is data_path)"
        )


def files_digest(config: Any) -> str | None:
    """A hash of the data set's files where a saved copy of it may be used in their place (``save_dataset``);
    else None."""
    saved = Path(config["checkpoint_dir"]).glob(f"{glob.escape(str(config['dataset']))}-*Dataset.pth")
    if not (config["save_dataset"] or config["dataset_save_path"] or any(saved)):
        return None
    digest = hashlib.sha256()
    for path in sorted(Path(config["data_path"]).glob(f"{glob.escape(str(config['dataset']))}.*")):
        if path.is_file():
            digest.update(f"{path.name}\x1f".encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def data_settings(dataset: str, folder: Path, shipped: Path | None) -> DataSettings:
    """The settings that come with the data set in ``folder``.

    Args:
        shipped: the file that this package has for a data set of that name, if it exists.

    ``NAME.yaml`` beside the data comes before the shipped file. A file that holds other settings than
    ``DATA_KEYS``, or does not match the data, is left out, and a note says why.
    """
    beside = folder / f"{dataset}.yaml"
    if beside.is_file():
        values, reason = _beside(beside)
        reason = reason or _misfit(values, dataset, folder)
        if reason:
            return DataSettings({}, ((logging.WARNING, f"{beside} is not used: {reason}"),))
        return DataSettings(values, ((logging.INFO, f"settings of the data set: {beside}"),))
    if shipped is None or not shipped.is_file() or not folder.is_dir():
        return DataSettings()
    values = read_yaml_file(shipped, str(shipped))
    reason = _misfit(values, dataset, folder)
    if reason:
        text = f"{dataset}: this package's settings for a data set of that name do not apply: {reason}"
        return DataSettings({}, ((logging.WARNING, text),))
    return DataSettings(values)


def _beside(file: Path) -> tuple[dict[str, Any], str | None]:
    try:
        values = read_yaml_file(file, str(file))
    except AlkdError as error:
        return {}, str(error)
    if not isinstance(values, dict):
        return {}, "a mapping of settings is expected"
    others = [str(key) for key in values if key not in DATA_KEYS]
    if others:
        return (
            {},
            f"it holds {', '.join(others[:3])}, and only settings of the data are read there; "
            "give it with --config_files",
        )
    return values, None


def _misfit(values: Mapping[str, Any], dataset: str, folder: Path) -> str | None:
    """Why the settings are not those of the files in ``folder``; None when they match."""
    parts = values.get("benchmark_filename")
    load = values.get("load_col")
    columns = load.get("inter") if isinstance(load, dict) else None
    separator, encoding = (
        value if isinstance(value := values.get(key), str) else None
        for key in ("field_separator", "encoding")
    )
    for name in (
        [f"{dataset}.{part}.inter" for part in parts] if isinstance(parts, list) else [f"{dataset}.inter"]
    ):
        path = existing(folder / name)
        if path is None:
            return f"there is no {name}"
        try:
            with open_table(path, separator, encoding) as table:
                wanted = columns if isinstance(columns, list) else []
                missing = [str(column) for column in wanted if column not in table.columns]
                if missing:
                    return (
                        f"{path.name} has no column {', '.join(missing)} (it has {', '.join(table.columns)})"
                    )
        except AlkdError as error:
            return str(error)
    return None


def benchmark_settings(
    augmentation: str | None = None, max_length: int | None = None, title_field: str | None = None
) -> dict[str, Any]:
    """The settings that read files (session_id, item_id_list, item_id) in three parts."""
    settings: dict[str, Any] = {
        "USER_ID_FIELD": "session_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
        "alias_of_item_id": ["item_id_list"],
        "benchmark_filename": ["train", "valid", "test"],
    }
    given = {
        "MAX_ITEM_LIST_LENGTH": max_length,
        "session_augmentation": augmentation,
        "title_field": title_field,
    }
    return settings | {key: value for key, value in given.items() if value is not None}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as YAML, in their order."""
    return yaml.safe_dump(
        dict(settings), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )
