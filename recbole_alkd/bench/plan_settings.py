"""The settings in a plan: which of them are for a plan to set, and files that stay where they are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_alkd.bench.names import seen
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.keys import known_keys
from recbole_alkd.settings.nearest import hint

# All arms are evaluated alike, so none may change what is evaluated.
SHARED_ONLY = (
    "seed", "eval_args", "mask_session_items", "session_window", "session_min_length", "session_time_unit",
    "benchmark_filename",
    "MAX_ITEM_LIST_LENGTH", "data_path", "val_interval", "user_inter_num_interval", "item_inter_num_interval",
    "rm_dup_inter",
)  # fmt: skip
# What the benchmark itself gives to each run, and where a plan says so.
BENCH_ONLY = {
    "seed": "give seeds", "student_model": "give backbones, or an arm model:NAME",
    "teacher_model": "give backbones, or set it for an arm",
    "checkpoint_dir": "runs are kept in the output folder (--out)",
    "show_progress": "the progress of a run is in its log",
}  # fmt: skip
# Files that a run reads: below where the bench was started, or the data path.
PATH_SETTINGS = ("alkd_picks", "llm_replay_file", "llm_price_file", "student_search")
NAME_OR_PATH = ("llm_prompt", "llm_model", "item_text")


def check_settings(groups: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """AlkdError where a plan sets what is no setting, what all arms share, or what is not for a plan to set.

    Args:
        groups: (where it stands in the plan, settings).
    """
    known = known_keys()
    for where, values in groups:
        for key in values:
            if key not in known:
                raise AlkdError(f"{where}: {unknown(key, known, 'setting', listed=False)}")
            if where != "settings" and not where.startswith("datasets") and key in SHARED_ONLY:
                raise AlkdError(f"{where}: {key} decides what is evaluated and must be the same for all arms")
            if key in BENCH_ONLY and not (
                key in ("student_model", "teacher_model") and where.startswith("arms")
            ):
                raise AlkdError(f"{where}: {key} is not for a plan to set; {BENCH_ONLY[key]}")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping from settings to values, {} for none; AlkdError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise AlkdError(f"{where}: {seen(value)} is not allowed; allowed: a mapping from settings to values")
    return dict(value)


def resolve_files(settings: dict[str, Any], data_path: str | None) -> dict[str, Any]:
    """Make the files in ``settings`` absolute: as they stand where there is such a file,
    otherwise below the data path."""
    for key in (*PATH_SETTINGS, *NAME_OR_PATH):
        if isinstance(settings.get(key), str) and settings[key]:
            name = settings[key].partition("#")[0]
            below = Path(data_path or ".") / name
            if below.is_file() and not Path(name).is_file():
                settings[key] = str(below) + settings[key][len(name) :]
            if key not in NAME_OR_PATH or Path(settings[key]).exists():
                settings[key] = absolute(settings[key])
    for key in ("label_store", "stage_cache", "data_path"):  # of a run, which works in another folder
        if isinstance(settings.get(key), str) and settings[key]:
            settings[key] = str(Path(settings[key]).expanduser().resolve())
    return settings


def absolute(path: str) -> str:
    """``FILE`` or ``FILE#key`` with an absolute FILE."""
    name, hash_sign, key = path.partition("#")
    return str(Path(name).resolve()) + hash_sign + key


def unknown(word: object, known: Iterable[str], kind: str, listed: bool = True) -> str:
    """What an error says of a word that is none of ``known``, with the nearest one."""
    names = sorted(known)
    return f"{seen(word)} is not a known {kind}{hint(word, names, 0.5)}" + (
        f"; known: {', '.join(names)}" if listed else ""
    )
