"""How many sessions a second the student, the teacher recommender and the LLM of a finished run answer: the
reason for distilling, as a picture.

    OMP_NUM_THREADS=1 recbole-alkd run --dataset=ml-100k --llm_threads=1 --budget_labels=100
    OMP_NUM_THREADS=1 python -m recbole_alkd.bench.speeds RUN_FOLDER --out speeds.png

The sessions are those that the LLM labelled. Its time is that of the labels in the store, without loading
and training it; student and teacher recommender answer the same sessions one by one, from their bundles, all
items ranked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_alkd.files import write_json, write_picture
from recbole_alkd.labels import LabelStore
from recbole_alkd.serving.labelled import labelled_sessions
from recbole_alkd.serving.recommender import Recommender, find_teacher
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.run_folder import RESULT

LLM, TEACHER, STUDENT = "LLM", "teacher recommender", "student"
_ROUNDS = 5
_SECONDS = 0.5  # of a round, at least


def measure(run: Path, store: Path | None = None) -> dict[str, Any]:
    """Sessions a second of the three, and what they are.

    Args:
        run: the folder of a finished run with labels of an LLM. store: its label store; that of the run's
            settings without.

    Raises:
        AlkdError: no such run, labels that took no time (recorded or a recommender's), or no bundle.
    """
    try:
        settings = json.loads((run / RESULT).read_text(encoding="utf-8"))["settings"]
        store = store or Path(settings["label_store"]).expanduser()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlkdError(f"{run}: not the folder of a finished run of ALKDRec ({error})") from None
    lines = list(labelled_sessions(run))
    if not store.is_file():
        raise AlkdError(f"{store}: no such label store; allowed: that of the run")
    with LabelStore(store) as labels:
        seconds = [label.seconds for label in labels.get_many([line["key"] for line in lines]).values()]
    if not seconds or not sum(seconds) > 0:
        raise AlkdError(f"{run}: its {len(seconds)} labels took no time; allowed: a run that asked an LLM")
    histories = [line["history"] for line in lines]
    teacher = find_teacher(run)
    if teacher is None:
        raise AlkdError(f"{run}: no bundle of its teacher recommender; allowed: a run with save_bundle: True")
    student, recommender = Recommender.load(run), Recommender.load(teacher)
    return {
        "sessions": len(histories),
        "dataset": settings.get("dataset"),
        "items": student.items.n_items - 1,
        "candidates": settings.get("llm_candidates"),
        "names": {
            LLM: str(settings.get("llm_model")),
            TEACHER: str(recommender.manifest["student"]["backbone"]),
            STUDENT: str(student.manifest["student"]["backbone"]),
        },
        "rates": {
            LLM: len(seconds) / sum(seconds),
            TEACHER: _rate(recommender, histories),
            STUDENT: _rate(student, histories),
        },
        "threads": {"llm": settings.get("llm_threads"), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def draw(facts: dict[str, Any], out: Path) -> Path:
    """The picture of what ``measure`` gave, on a logarithmic axis. AlkdError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise AlkdError("the picture needs matplotlib: pip install 'recbole-alkd[bench]'") from None
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.subplots()
    rows = [LLM, TEACHER, STUDENT]
    rates = [facts["rates"][row] for row in rows]
    labels = [f"{row}\n{facts['names'][row]}" for row in rows]
    axes.barh(labels, rates, color=["#d9541e", "#8a8a8a", "#2f7ed8"], height=0.6)
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 3, max(rates) * 12)
    for place, rate in enumerate(rates):
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        axes.annotate(shown, (rate, place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.set_xlabel(
        f"sessions a second, one thread; the same {facts['sessions']} sessions of {facts['dataset']}\n"
        f"(the LLM ranks {facts['candidates']} candidates, the recommenders all {facts['items']:,} items)"
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return write_picture(figure, out, dpi=160)


def _rate(recommender: Recommender, histories: Sequence[Sequence[str]]) -> float:
    """Sessions a second, one call each: the best of a few rounds."""
    for history in histories:
        recommender.recommend(history, 10)
    best = 0.0
    for _ in range(_ROUNDS):
        count, begin = 0, time.perf_counter()
        while (taken := time.perf_counter() - begin) < _SECONDS:
            for history in histories:
                recommender.recommend(history, 10)
            count += len(histories)
        best = max(best, count / taken)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recbole_alkd.bench.speeds", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the folder of a finished run, or the JSON of --out")
    parser.add_argument("--out", type=Path, required=True, help="a picture (.png, .svg, .pdf), or .json")
    parser.add_argument("--store", type=Path, help="the label store (default: that of the run's settings)")
    args = parser.parse_args()

    try:
        if args.run.suffix == ".json":
            facts = json.loads(args.run.read_text(encoding="utf-8"))
        else:
            facts = measure(args.run, args.store)
        print(json.dumps(facts, indent=1))
        if args.out.suffix == ".json":
            write_json(args.out, facts)
        else:
            draw(facts, args.out)
    except (AlkdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
