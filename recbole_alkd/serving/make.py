"""Making a bundle from a trained model: the one module of this room that sees RecBole, torch and the
trainer's world."""

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
from recbole_alkd.model.backbone import Backbone, view_and_model
from recbole_alkd.model.counting import session_counts, training_sessions
from recbole_alkd.model.scoring import METRICS, RANKS, gains
from recbole_alkd.model.session_fpmc import SessionFPMC
from recbole_alkd.model.session_knn import SessionKNN
from recbole_alkd.serving.card import card
from recbole_alkd.serving.items import Items, write_items
from recbole_alkd.serving.labelled import HINTS
from recbole_alkd.serving.make_counts import TableCounts, counts_of, write_reasons
from recbole_alkd.serving.make_labelled import write_labelled
from recbole_alkd.serving.make_onnx import write_encoder
from recbole_alkd.serving.manifest import (
    CARD,
    ENCODER,
    MANIFEST,
    ONNX,
    STUDENT,
    copy_bundle,
    write_bundle_folder,
)
from recbole_alkd.serving.onnx_model import write_onnx
from recbole_alkd.serving.recommender import BUNDLE, TEACHER_BUNDLE
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import write_tensors
from recbole_alkd.trainer.endings import FinishedRun
from recbole_alkd.trainer.run_folder import RESULT

# settings that say where things lie on the machine of the run, and nothing about the student
_PLACES = {
    "label_store", "llm_base_url", "llm_api_key_env", "ray_address", "stage_cache", "alkd_picks",
    "alkd_plugins", "item_text_file",
}  # fmt: skip


def bundle_of_run(run: FinishedRun, log: logging.Logger) -> str | None:
    """Where ``save_bundle`` asks for it, write ``labelled.jsonl``, ``bundle/`` and ``teacher-bundle/``, the
    teacher recommender that the page shows beside the student, into the folder of a finished run; gives the
    commands that use it."""
    if not run.settings.report.save_bundle:
        return None
    if run.labels:
        # the distilled student last: the model keeps the state that it is given last
        stages = {name: run.stages[name] for name in sorted(run.stages, key="distilled".__eq__)}
        write_labelled(run.folder, run.train if run.part is None else run.part, run.labels, stages, run.names)
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
    view, titles = _view(model)
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
        facts.update(_write_student(folder, view, titles, width))
        if isinstance(view.model, SessionKNN):
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

    content = {"created": _now(), "student": facts, **_facts(train, report, ranks)}
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


def _view(model: Any) -> tuple[Backbone, np.ndarray | None]:
    """The backbone of a model, and what late fusion serves beside it, (n_items, d)."""
    if hasattr(model, "view"):
        served = getattr(getattr(model, "titles", None), "vectors", None)
        return model.view, None if served is None else served.detach().cpu().numpy()
    view, _ = view_and_model(type(model).__name__)
    return view(model), None


def _write_student(folder: Path, view: Backbone, titles: np.ndarray | None, width: int) -> dict[str, Any]:
    """Write what scores, and say of what kind it is."""
    import torch

    model = view.model
    if isinstance(model, SessionKNN):
        # as torch computes the powers, so that scores are the same to the last bit
        recency = (model.decay ** torch.arange(model.last_items, device=model.decay.device)).float()
        tensors = {
            name: getattr(model, name).detach().cpu().numpy() for name in ("indptr", "indices", "weights")
        }
        write_tensors(folder / STUDENT, {**tensors, "recency": recency.cpu().numpy()})
        return {
            "kind": "table",
            "edges": len(tensors["indices"]),
            "last_items": model.last_items,
            "decay": float(model.decay),
        }
    if not view.has_vectors:
        write_encoder(folder / ENCODER, view, None, width)
        write_tensors(folder / STUDENT, {"items": np.array([int(model.n_items)])})
        return {"kind": "scores"}
    with torch.no_grad():
        output = view.item_table().detach().cpu().float().numpy()
    output = output if titles is None else np.concatenate([output, titles], axis=1)
    title_size = 0 if titles is None else titles.shape[1]
    if isinstance(model, SessionFPMC):
        given = model.input_embedding.weight.detach().cpu().float().numpy()
        given = given if titles is None else np.concatenate([given, titles], axis=1)
        write_tensors(folder / STUDENT, {"input": given, "output": output})
        return {
            "kind": "embeddings",
            "size": output.shape[1],
            "title_size": title_size,
            "item_decay": float(model.item_decay),
        }
    write_encoder(folder / ENCODER, view, titles, width)
    write_tensors(folder / STUDENT, {"output": output})
    return {"kind": "encoder", "size": output.shape[1], "title_size": title_size}


def _facts(train: Any, report: Mapping[str, Any] | None, ranks: np.ndarray | None) -> dict[str, Any]:
    """What a manifest tells of the run."""
    config = train.config
    sessions = len(np.unique(train.inter_feat[train.uid_field].numpy()))
    facts: dict[str, Any] = {
        "dataset": {"name": config["dataset"], "training_sessions": sessions, "items": train.item_num - 1},
        "limits": [
            "Items without a click in training come last; the catalogue is that of the training data.",
            "Nothing is known of users: a session is all that it looks at.",
            "Metrics are of one training on one split; another seed can come out differently.",
        ],
    }
    if report:
        settings = {key: value for key, value in report["settings"].items() if key not in _PLACES}
        facts |= {
            "settings": settings,
            "metrics": _metrics(report, ranks),
            "comparison": report.get("comparison"),
            "bill": {
                key: value for key, value in report["labels"].items() if not isinstance(value, (list, dict))
            },
        }
    return json.loads(json.dumps(facts, default=str))


def _metrics(report: Mapping[str, Any], ranks: np.ndarray | None) -> dict[str, Any]:
    """Test metrics of the distilled student; with its ranks also the ends of their 95 % intervals over
    sessions."""
    metrics = {}
    for name, value in report["stages"]["distilled"]["test"].items():
        metrics[name] = {"value": value}
        if ranks is not None and name.partition("@")[0] in METRICS:
            gain = gains(ranks, name)
            spread = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
            metrics[name] |= {
                "low": round(value - spread, 4),
                "high": round(value + spread, 4),
                "sessions": len(gain),
            }
    return metrics


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
