"""What ``result.json`` holds so that the run can be understood and run again:
settings, versions, times, places."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.processes.group import place
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.identity import versions
from recbole_alkd.trainer.logs import log_file
from recbole_alkd.trainer.run_folder import RESULT

# what decides the training and the evaluation of a run, beside ALKDRec's own settings
TRAINING = (
    "learning_rate",
    "train_batch_size",
    "epochs",
    "eval_step",
    "stopping_step",
    "learner",
    "weight_decay",
)
EVALUATION = (
    "eval_args",
    "metrics",
    "topk",
    "valid_metric",
    "metric_decimal_place",
    "eval_batch_size",
    "MAX_ITEM_LIST_LENGTH",
)
_NOT_GIVEN = {"model", "dataset", "config_files", "nproc", "world_size", "ip", "port", "local_rank", "offset"}


@dataclass(frozen=True)
class Again:
    """A run that can be run again. ``notes``: what is not as it was, in lines for the user."""

    model: str
    dataset: str
    settings: dict[str, Any]
    notes: list[str]


def run_facts(config: Any, runs: Mapping[str, Any], began: float, tensorboard: str | None) -> dict[str, Any]:
    """The facts of a run that ends now.

    Args:
        config: RecBole's Config. runs: role -> the run as its recommender saw it (``tuning.RoleRun``).
        began: seconds since 1970, when this start of the run began.
    """
    given = {key: value for key, value in config.external_config_dict.items() if key not in _NOT_GIVEN}
    log = log_file()
    facts = {
        "again": {
            "model": config["model"],
            "dataset": config["dataset"],
            "settings": given,
            "directory": os.getcwd(),
        },
        "versions": {**versions(), "python": platform.python_version()},
        "began": _utc(began),
        "ended": _utc(time.time()),
        "seconds": round(time.time() - began, 3),
        "device": str(config["device"]),
        "processes": place()[1],
        "log": None if log is None else os.fspath(log),
        "tensorboard": tensorboard,
        "training": {role: {key: run.config[key] for key in TRAINING} for role, run in runs.items()},
        "evaluation": {key: config[key] for key in EVALUATION},
    }
    return json.loads(json.dumps(facts, default=str))


def read_again(place: str) -> Again:
    """What ``recbole-alkd run --again`` runs: the run behind a result.json, or behind the run folder that
    holds one.

    Raises:
        AlkdError: no such file, or it does not say how to run it again.
    """
    file = Path(place)
    file = file / RESULT if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise AlkdError(
            f"--again: {os.fspath(file)!r} cannot be read ({error.strerror}); allowed: a run's {RESULT}"
        ) from None
    except (ValueError, RecursionError):
        raise AlkdError(
            f"--again: {os.fspath(file)!r} is not readable as JSON; allowed: a run's {RESULT}"
        ) from None
    again = content.get("again") if isinstance(content, dict) else None
    kinds = {"model": str, "dataset": str, "settings": dict}
    if not isinstance(again, dict) or not all(
        isinstance(again.get(key), kind) for key, kind in kinds.items()
    ):
        raise AlkdError(
            f"--again: {os.fspath(file)!r} does not say how to run it again; "
            f"allowed: a {RESULT} of this version"
        )
    return Again(again["model"], again["dataset"], again["settings"], _notes(content, again))


def _notes(content: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    notes, then = [], content.get("versions")
    if isinstance(then, dict):
        changed = [
            f"{name} {then[name]} (here {here})"
            for name, here in versions().items()
            if then.get(name, here) != here
        ]
        if changed:
            notes.append(f"the run was made with {', '.join(changed)}: its numbers may come out differently")
    directory = again.get("directory")
    if isinstance(directory, str) and directory != os.getcwd():
        notes.append(f"the run was made in {directory}: relative paths among its settings are read from here")
    return notes


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
