"""Runs of a plan: in subprocesses, side by side, kept under their content, and never repeated once they are
finished.

In the output folder: ``results/`` one pair of files a finished run, ``cache/`` shared teacher recommenders
and students, ``labels.sqlite``, ``logs/`` what each run printed.
A run is kept under a hash of all that decides it (``run_key``).
"""

from __future__ import annotations

import fcntl
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from recbole_alkd.bars import progress_bar
from recbole_alkd.bench.arms import CLOSED_FORM
from recbole_alkd.bench.before import config_of
from recbole_alkd.bench.cores import threads_of_a_run
from recbole_alkd.bench.plan import Plan, Task
from recbole_alkd.bench.plan_settings import PATH_SETTINGS
from recbole_alkd.bench.processes import start_run
from recbole_alkd.bench.progress import LogWatch
from recbole_alkd.bench.results import Outcome, load_result
from recbole_alkd.data.content import data_fingerprint, file_hash
from recbole_alkd.files import write_whole
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import settings_hash
from recbole_alkd.trainer.identity import outcome_settings, plugin_sources

# stage -> the recommenders that it trains, and whether anything is labelled;
# everything, for stages that are not named here
TRAINS: dict[str, tuple[tuple[str, ...], bool]] = {
    "student": (("student",), False),
    "student_half": (("student",), False),
    "teacher": (("teacher",), False),
    **dict.fromkeys(CLOSED_FORM, ((), False)),
}


def run_key(task: Task, config: Any, data: str) -> str:
    """The content a run is kept under: its stage, its data, and every setting that decides it,
    defaults among them.

    Names and places do not count, of files and plug-ins that settings name the content does.

    Args:
        config: RecBole's Config of the task (of any seed). data: ``data_fingerprint``.
    """
    from recbole_alkd.settings.reading import settings_of
    from recbole_alkd.settings.rules import is_vector_file
    from recbole_alkd.teacher.prompt import load_prompt

    settings, stage = settings_of(config), task.arm.stage
    values = outcome_settings(config, settings, *TRAINS.get(stage, ()))
    for key in PATH_SETTINGS:
        if values.get(key):
            name, _, part = values[key].partition("#")
            values[key] = [file_hash(Path(name)), part]
    if is_vector_file(values.get("item_text") or ""):
        files = (Path(values["item_text"]), Path(values["item_text"]).with_suffix(".ids"))
        values["item_text"] = [file_hash(file) for file in files if file.is_file()]
    if stage not in TRAINS and teachers.get(settings.teacher.llm_teacher).needs_titles:
        prompt = load_prompt(settings.teacher.llm_prompt, task.dataset, settings.selection.alkd_unit)
        values["llm_prompt"] = dict(prompt.texts)
    content = {"settings": {**values, "seed": task.seed}, "stage": stage, "data": data}
    if stage not in CLOSED_FORM and (sources := plugin_sources(settings)):
        content["plug-ins"] = sources
    return settings_hash(content)


def arm_configs(plan: Plan) -> dict[tuple[str, str, str], Any]:
    """(data set, backbone, arm) -> RecBole's Config of its first seed, which decides all that seeds share."""
    return {
        (task.dataset, task.backbone, task.arm.name): config_of(task.dataset, task.arm.stage, task.settings)
        for task in replace(plan, seeds=plan.seeds[:1]).tasks()
    }


def run_plan(plan: Plan, out: Path, jobs: int = 1, arms: Sequence[str] | None = None) -> Outcome:
    """Run what is not finished yet, ``jobs`` runs at a time, and collect all results.

    ``cores.threads_of_a_run`` says how many threads each has. A run that fails does not end the others. On
    ``KeyboardInterrupt`` the runs under way are stopped and finished ones are kept;
    a later call resumes from there.

    Args:
        arms: run these alone, in this order (``Plan.chosen_arms``); an empty list runs nothing. Results of
            the others that are there are collected too.
    """
    make_folders(out)
    threads = threads_of_a_run(jobs)
    tasks = list(plan.tasks())
    asked = (
        tasks
        if arms is None
        else sorted((t for t in tasks if t.arm.name in arms), key=lambda t: arms.index(t.arm.name))
    )
    configs = arm_configs(plan)
    keys, prints = {}, {}
    for task in tasks:
        config = configs[task.dataset, task.backbone, task.arm.name]
        prints[task.dataset] = data_fingerprint(Path(config["data_path"]), task.dataset)
        keys[task] = run_key(task, config, prints[task.dataset])
    waiting: dict[str, Task] = {}
    for task in asked:
        stem = out / "results" / keys[task]
        if keys[task] not in waiting and load_result(task, stem) is None:
            waiting[keys[task]] = task
            if stem.with_name(f"{stem.name}.json").is_file():
                print(f"{task}: its result {stem}.json or .npz is damaged and is made again", file=sys.stderr)
                stem.with_name(f"{stem.name}.json").unlink()
    reasons = _run_all(waiting, prints, out, jobs, threads)
    results, failed, missing = [], {}, []
    for task in tasks:
        result = None if keys[task] in reasons else load_result(task, out / "results" / keys[task])
        if result is None and task not in asked:
            missing.append(task)
        elif result is None:
            failed[task] = reasons.get(
                keys[task], f"its result cannot be read ({out / 'results' / keys[task]}.json)"
            )
        else:
            results.append(result)
    return Outcome(results, failed, tuple(missing))


def make_folders(out: Path) -> None:
    """The folders of a benchmark in ``out``.

    Raises:
        AlkdError: one cannot be made, or nothing can be written into it.
    """
    try:
        for name in ("results", "tasks", "logs", "cache", "work"):
            (out / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out / name):
                pass
    except OSError as error:
        what = error.strerror or error
        raise AlkdError(
            f"--out: nothing can be written into {str(out)!r} ({what}); give another folder"
        ) from None


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold ``out`` for one benchmark: two would run the same plan twice and write one report over the other.

    Raises:
        AlkdError: another process holds it.
    """
    make_folders(out)
    # the system takes the lock back when the process dies
    with open(out / ".lock", "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlkdError(
                f"--out: another benchmark is running in {str(out)!r}; wait for it, or give another folder"
            ) from None
        yield


def _run_all(
    waiting: dict[str, Task], data: dict[str, str], out: Path, jobs: int, threads: int
) -> dict[str, str]:
    """Run every waiting task; gives back key -> reason of those that failed.
    A reason that several have is shown once."""
    queue = list(waiting.items())
    running: dict[str, BaseProcess] = {}
    reasons: dict[str, str] = {}
    watches: dict[str, LogWatch] = {}
    told: set[str] = set()
    with progress_bar(total=len(queue), desc="runs", unit="run", dynamic_ncols=True) as bar:
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    key, task = queue.pop(0)
                    running[key] = _start(key, task, data[task.dataset], out, threads)
                    watches[key] = LogWatch(out / "logs" / f"{key}.log")
                for key in [key for key, process in running.items() if not process.is_alive()]:
                    code = running.pop(key).exitcode
                    if code or not (out / "results" / f"{key}.json").is_file():
                        reasons[key] = _reason(out / "logs" / f"{key}.log", code)
                        if cause(reasons[key]) not in told:
                            bar.write(f"failed: {waiting[key]}: {reasons[key]}")
                        told.add(cause(reasons[key]))
                    bar.update()
                for key in running:
                    if news := watches[key].news():
                        bar.write(f"{waiting[key]}: {news}")
                bar.set_postfix_str("; ".join(str(waiting[key]) for key in running), refresh=False)
                time.sleep(0.2)
        finally:
            _stop(running.values())
    return reasons


def _start(key: str, task: Task, data: str, out: Path, threads: int) -> BaseProcess:
    root = out.resolve()
    settings = {
        "stage_cache": str(root / "cache"),
        "label_store": str(root / "labels.sqlite"),
        **task.settings,
        "checkpoint_dir": str(root / "work" / "saved"),
        "save_bundle": False,
        "show_progress": False,
    }
    content = {
        "dataset": task.dataset, "stage": task.arm.stage, "settings": settings, "data": data, "key": key,
        "results": str(root / "results"),
    }  # fmt: skip
    # for the worker alone: a setting may be .inf, which JSON proper has not
    file = write_whole(root / "tasks" / f"{key}.json", json.dumps(content, ensure_ascii=False))
    return start_run(file, root / "logs" / f"{key}.log", root / "work", threads)


def cause(reason: str) -> str:
    """A ``_reason`` without where it came up, by which runs that failed alike are told once."""
    return reason.rpartition(" (exit code ")[0] or reason


def _reason(log: Path, code: int | None) -> str:
    """The last line that a failed run printed."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    if code is not None and code < 0:
        said = (
            f"ended by signal {-code}{', perhaps for memory' if code == -signal.SIGKILL else ''}; "
            f"its last line: {said}"
        )
    return f"{said} (exit code {code}, {log})"


def _stop(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
