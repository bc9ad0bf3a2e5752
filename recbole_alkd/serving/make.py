"""Making a bundle from a trained model.

The modules of this room whose names begin with ``make`` see RecBole, torch and the trainer's world, and no
other does.
"""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import set_color

from recbole_alkd.data.titles import NoTitlesError, clean_title, titles_of
from recbole_alkd.files import write_json
from recbole_alkd.model.counting import session_counts, training_sessions
from recbole_alkd.model.scoring import RANKS
from recbole_alkd.serving.card import card
from recbole_alkd.serving.items import Items, write_items
from recbole_alkd.serving.labelled import HINTS
from recbole_alkd.serving.make_counts import TableCounts, counts_of, write_reasons
from recbole_alkd.serving.make_facts import facts_of
from recbole_alkd.serving.make_labelled import write_labelled
from recbole_alkd.serving.make_student import view_of, write_student
from recbole_alkd.serving.manifest import CARD, MANIFEST, ONNX, copy_bundle, write_bundle_folder
from recbole_alkd.serving.onnx_model import write_onnx
from recbole_alkd.serving.recommender import BUNDLE, TEACHER_BUNDLE
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.endings import FinishedRun
from recbole_alkd.trainer.run_folder import RESULT


def bundle_of_run(run: FinishedRun, log: logging.Logger) -> str | None:
    """Where ``save_bundle`` asks for it, write ``labelled.jsonl``, ``bundle/`` and ``teacher-bundle/``, the
    teacher recommender that the page shows beside the student, into the folder of a finished run; gives the
    commands that use it."""
    if not run.settings.report.save_bundle:
        return None
    if run.labels:
        # the distilled student last: the model keeps the state that it is given last
        stages = {name: run.stages[name] for name in sorted(run.stages, key="distilled".__eq__)}
        part, unit = run.train if run.part is None else run.part, run.settings.selection.alkd_unit
        write_labelled(run.folder, part, run.labels, stages, run.names, unit)
        write_json(run.folder / HINTS, list(run.hints()))
    if "teacher" in run.stages:
        _teacher_bundle(run, log)
    out = make_bundle(run.model, run.train, run.folder / BUNDLE, run.report, _ranks(run.folder), replace=True)
    without = "" if (out / ONNX).exists() else f", without {ONNX}, for which the package onnx is missing"
    log.info(set_color("bundle", "blue") + f": {out}{without}")
    lines = "\n".join(f"    {line}" for line in commands(run.folder, out))
    return set_color("use it", "blue") + f"\n\n{lines}\n"


def _teacher_bundle(run: FinishedRun, log: logging.Logger) -> None:
    """Write ``teacher-bundle/``; a teacher recommender that cannot be taken out of torch is not shown, and
    that is all."""
    model, state = run.stages["teacher"]
    model.load_state_dict(state, strict=False)
    model.eval()
    try:
        make_bundle(model, run.train, run.folder / TEACHER_BUNDLE, replace=True)
    except AlkdError as error:
        log.info(set_color("bundle", "blue") + f": without the teacher recommender: {error}")


def commands(folder: Path, bundle: Path) -> list[str]:
    """What to type to use the bundle of a run: a session of its most popular items, ids with
    spaces left out."""
    items = Items.read(bundle)
    ids = [
        one
        for one in items.ids(items.popular[:50])
        if one.split() == [one] and ";" not in one and not one.startswith("-")
    ][:3]
    where, history = shlex.quote(str(folder)), shlex.quote(" ".join(ids) or "ITEM ITEM")
    return [
        f"recbole-alkd recommend --bundle {where} --history {history}",
        f"recbole-alkd explain --bundle {where} --history {history}",
        f"recbole-alkd serve --bundle {where}",
    ]


def write_bundle(run_folder: str | Path, out: str | Path) -> Path:
    """The bundle of a finished run, as a folder of its own.

    Args:
        run_folder: of ALKDRec, or a checkpoint (``.pth``) of a backbone that was trained alone. The bundle in
            it is copied; without one it is made from the checkpoint, for which the data set has to be where
            it was.
        out: a folder that is not there.

    Returns:
        ``out``.

    Raises:
        AlkdError: no finished run, a bundle that is damaged, a backbone that cannot be taken out of torch,
        ``out`` is there.
    """
    run, out = Path(run_folder), Path(out)
    if run.is_file():
        model, train, valid = _loaded(run)
        return make_bundle(model, train, out, valid=valid)
    if not run.is_dir():
        raise AlkdError(f"{run}: no such folder; allowed: the folder of a finished run")
    if (run / BUNDLE / MANIFEST).exists():
        return copy_bundle(run / BUNDLE, out)
    report = _report(run)
    checkpoint = run / f"{report['settings']['model']}.pth"
    if not checkpoint.is_file():
        raise AlkdError(
            f"{run}: no bundle and no {checkpoint.name} in it; run it again with saved=True or "
            "save_bundle: True"
        )
    model, train, _ = _loaded(checkpoint)
    return make_bundle(model, train, out, report, _ranks(run))


def _loaded(checkpoint: Path) -> tuple[Any, Any, Any]:
    """The model of a checkpoint of RecBole's, and the training and validation parts that it came from."""
    from recbole.quick_start import load_data_and_model

    before, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads it whenever it makes a Config
    try:
        _, model, _, train, valid, _ = load_data_and_model(str(checkpoint))
    finally:
        sys.argv = before
    return model, train._dataset, valid._dataset if valid else None


def make_bundle(
    model: Any,
    train: Any,
    out: Path,
    report: Mapping[str, Any] | None = None,
    ranks: np.ndarray | None = None,
    replace: bool = False,
    valid: Any = None,
) -> Path:
    """Write the bundle of a trained model.

    Args:
        model: ALKDRec's student, or a backbone that was trained alone. train: the training part that it was
            trained on.
        out: the folder. report: what ``result.json`` holds, where there is a report. ranks: (sessions,) of
            the test targets.
        replace: whether a bundle that is there is replaced.
        valid: the part that a table was chosen on which was trained alone: it is counted again, for updates.

    Raises:
        AlkdError: ``out`` is there, or the backbone cannot be taken out of torch, which names it.
    """
    view, titles = view_of(model)
    ids = np.asarray(train.field2id_token[train.iid_field])[1:].astype(str).tolist()
    flat, offsets = training_sessions(train)
    counts = session_counts(flat, offsets, train.item_num)
    list_field = train.iid_field + train.config["LIST_SUFFIX"]
    width = int(train.inter_feat[list_field].shape[1])
    facts: dict[str, Any] = {
        "backbone": type(view.model).__name__, "items": len(ids), "max_length": width,
        "mask_session_items": bool(getattr(model, "mask_session_items", False)),
    }  # fmt: skip

    def fill(folder: Path) -> None:
        facts.update(write_student(folder, view, titles, width))
        if view.served_as == "table":
            fitted = dict((report or {}).get("stages", {}).get("distilled", {}).get("fitted") or {})
            kept = counts_of(view.model, train, flat, offsets, fitted, valid)
            if isinstance(kept, TableCounts):
                kept.write(folder)
                write_reasons(folder, kept)
            else:
                facts["no_counts"] = kept
        write_items(folder, ids, shown_titles(train, ids), counts)
        if find_spec("onnx"):
            write_onnx(folder, facts, train.item_num)
        (folder / CARD).write_text(card(content), encoding="utf-8")

    content = {"created": _now(), "student": facts, **facts_of(train, report, ranks)}
    return write_bundle_folder(out, content, fill, replace)


def shown_titles(train: Any, ids: list[str]) -> list[str]:
    """The titles of items, "" for those that have none."""
    try:
        titles = titles_of(train.config, train.iid_field, ids)
    except NoTitlesError:
        return [""] * len(ids)
    except AlkdError as error:
        # a run that needs no titles ends well beside a file of other titles, and so does this
        logging.getLogger().warning(f"the bundle has no titles: {error}")
        return [""] * len(ids)
    return ["" if titles[item] == clean_title(f"item {item}") else titles[item] for item in ids]


def _ranks(folder: Path) -> np.ndarray | None:
    file = folder / RANKS
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["distilled_test"]


def _report(folder: Path) -> dict[str, Any]:
    file = folder / RESULT
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        _ = report["settings"]["model"], report["stages"]["distilled"]
    except OSError:
        raise AlkdError(f"{folder}: no {RESULT} in it; allowed: the folder of a finished run") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AlkdError(f"{file}: not the result of a run of ALKDRec") from None
    return report


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
