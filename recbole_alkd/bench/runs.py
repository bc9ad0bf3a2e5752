"""Runs of a plan: in subprocesses, side by side, kept under their content, and never repeated once they are finished.

In the output folder: ``results/`` one pair of files a finished run, ``cache/`` shared teacher recommenders and students,
``labels.sqlite``, ``logs/`` what each run printed. A run is kept under a hash of all that decides it (``run_key``).
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_alkd.bench.arms import CLOSED_FORM
from recbole_alkd.bench.plan import PATH_SETTINGS, Plan, Task
from recbole_alkd.bench.processes import start_run
from recbole_alkd.config import settings_hash
from recbole_alkd.files import write_json
from recbole_alkd.registry import teachers
from recbole_alkd.trainer.deciding import deciding_settings

# stage -> the recommenders that it trains, and whether anything is labelled; everything, for stages that are not named here
TRAINS: dict[str, tuple[tuple[str, ...], bool]] = {
    "student": (("student",), False),
    "student_half": (("student",), False),
    "teacher": (("teacher",), False),
    **dict.fromkeys(CLOSED_FORM, ((), False)),
}


@dataclass(frozen=True)
class Result:
    """A finished run: ranks of the test and valid targets (1 = best), what it cost, and of the test part sessions and ``groups``.

    groups: the place of each target in ``trainer.ranks.GROUPS``.
    """

    task: Task
    test: np.ndarray
    valid: np.ndarray
    sessions: np.ndarray
    groups: np.ndarray
    facts: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a plan: finished runs, and the reason of each that failed."""

    results: list[Result]
    failed: dict[Task, str]


def run_key(task: Task, config: Any, data: str) -> str:
    """The content a run is kept under: its stage, its data, and every setting that decides it, defaults among them.

    Names and places do not count, of files that settings name the content does.

    Args:
        config: RecBole's Config of the task (of any seed). data: ``data_fingerprint``.
    """
    from recbole_alkd.plugin import settings_of
    from recbole_alkd.teacher.prompt import load_prompt

    settings, stage = settings_of(config), task.arm.stage
    values = deciding_settings(config, settings, *TRAINS.get(stage, ()))
    for key in PATH_SETTINGS:
        if values.get(key):
            name, _, part = values[key].partition("#")
            values[key] = [_file_hash(name), part]
    if stage not in TRAINS and teachers.get(settings.teacher.llm_teacher).needs_titles:
        values["llm_prompt"] = dict(load_prompt(settings.teacher.llm_prompt, task.dataset).texts)
    return settings_hash({"settings": {**values, "seed": task.seed}, "stage": stage, "data": data})


@cache
def data_fingerprint(folder: Path, dataset: str) -> str:
    """A hash of the content of every file of a data set."""
    files = sorted(path for path in folder.glob(f"{glob.escape(dataset)}.*") if path.is_file())
    return settings_hash({path.name: _file_hash(str(path)) for path in files})


@cache
def _file_hash(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if sys.version_info >= (3, 11) else _digest(stream.read())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def arm_configs(plan: Plan) -> dict[tuple[str, str, str], Any]:
    """(data set, backbone, arm) -> RecBole's Config of its first seed, which decides all that seeds share."""
    from recbole.config import Config

    from recbole_alkd.plugin import empty_argv

    with empty_argv():
        return {
            (task.dataset, task.backbone, task.arm.name): Config("ALKDRec", task.dataset, config_dict=dict(task.settings))
            for task in replace(plan, seeds=plan.seeds[:1]).tasks()
        }


def run_plan(plan: Plan, out: Path, jobs: int = 1) -> Outcome:
    """Run what is not finished yet, ``jobs`` runs at a time, and collect all results.

    The machine's cores are divided among the jobs. A run that fails does not end the others. On ``KeyboardInterrupt`` the
    runs under way are stopped and finished ones are kept; a later call goes on from there.
    """
    for name in ("results", "tasks", "logs", "cache", "work"):
        (out / name).mkdir(parents=True, exist_ok=True)
    tasks = list(plan.tasks())
    configs = arm_configs(plan)
    keys, prints = {}, {}
    for task in tasks:
        config = configs[task.dataset, task.backbone, task.arm.name]
        prints[task.dataset] = data_fingerprint(Path(config["data_path"]), task.dataset)
        keys[task] = run_key(task, config, prints[task.dataset])
    waiting: dict[str, Task] = {}
    for task in tasks:
        if not (out / "results" / f"{keys[task]}.json").is_file():
            waiting.setdefault(keys[task], task)
    reasons = _run_all(waiting, prints, out, jobs)
    results, failed = [], {}
    for task in tasks:
        if keys[task] in reasons:
            failed[task] = reasons[keys[task]]
        else:
            results.append(load_result(task, out / "results" / keys[task]))
    return Outcome(results, failed)


def load_result(task: Task, stem: Path) -> Result:
    """A finished run from its pair of files."""
    facts = json.loads(stem.with_name(f"{stem.name}.json").read_text(encoding="utf-8"))
    with np.load(stem.with_name(f"{stem.name}.npz"), allow_pickle=False) as arrays:
        return Result(task, arrays["test"], arrays["valid"], arrays["sessions_test"], arrays["groups_test"], facts)


def _run_all(waiting: dict[str, Task], data: dict[str, str], out: Path, jobs: int) -> dict[str, str]:
    """Run every waiting task; gives back key -> reason of those that failed."""
    queue = list(waiting.items())
    running: dict[str, BaseProcess] = {}
    reasons: dict[str, str] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with tqdm(total=len(queue), desc="runs", unit="run", dynamic_ncols=True) as bar:
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    key, task = queue.pop(0)
                    running[key] = _start(key, task, data[task.dataset], out, threads)
                for key in [key for key, process in running.items() if not process.is_alive()]:
                    code = running.pop(key).exitcode
                    if code or not (out / "results" / f"{key}.json").is_file():
                        reasons[key] = _reason(out / "logs" / f"{key}.log", code)
                        bar.write(f"failed: {waiting[key]}: {reasons[key]}")
                    bar.update()
                bar.set_postfix_str("; ".join(str(waiting[key]) for key in running), refresh=False)
                time.sleep(0.2)
        finally:
            _stop(running.values())
    return reasons


def _start(key: str, task: Task, data: str, out: Path, threads: int) -> BaseProcess:
    root = out.resolve()
    settings = {
        **task.settings,
        "stage_cache": str(root / "cache"),
        "label_store": str(root / "labels.sqlite"),
        "checkpoint_dir": str(root / "work" / "saved"),
        "show_progress": False,
    }
    content = {
        "dataset": task.dataset, "stage": task.arm.stage, "settings": settings, "data": data, "key": key,
        "results": str(root / "results"),
    }  # fmt: skip
    file = write_json(root / "tasks" / f"{key}.json", content)
    return start_run(file, root / "logs" / f"{key}.log", root / "work", threads)


def _reason(log: Path, code: int | None) -> str:
    """The last line that a failed run printed."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    return f"{said} (exit code {code}, {log})"


def _stop(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
