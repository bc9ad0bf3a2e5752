"""What settings alone tell before anything is read or trained: names, files, and what goes with what.

``check_names`` runs whenever RecBole's Config of an ALKDRec run is made. A check that needs the data belongs to the trainer's
``_begin``, which runs before the first epoch.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from recbole_alkd.active.difficulty import check_difficulty
from recbole_alkd.config import FIELDS, AlkdError, Settings
from recbole_alkd.distill.combined import check_losses, wanted_losses
from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.registry import backbones, losses, policies, teachers
from recbole_alkd.teacher.base import check_teacher

_asks: ContextVar[bool] = ContextVar("asks", default=True)


@contextlib.contextmanager
def asking_nobody() -> Iterator[None]:
    """Inside of this no LLM is needed: neither its device nor its key is looked for (``select``, ``label --dry-run``)."""
    token = _asks.set(False)
    try:
        yield
    finally:
        _asks.reset(token)


def check_names(settings: Settings) -> None:
    """Import the user's plug-ins, then look every name up, so that a misspelt one ends the run before it starts.

    Raises:
        AlkdError: a name that is not known, a file that cannot be read, settings that do not go together, and what the LLM
            teacher's own ``check`` finds missing (unless inside of ``asking_nobody``).
    """
    for module in settings.plugin.alkd_plugins:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise AlkdError(f"alkd_plugins: cannot import {module!r}: {error}") from error
    for key in ("student_model", "teacher_model"):
        name = getattr(settings.backbone, key)
        if name not in backbones:
            raise AlkdError(backbones.unknown(name).replace("student_model", key, 1))
    policies.get(settings.selection.alkd_policy)
    teacher = teachers.get(settings.teacher.llm_teacher)
    check_teacher(teacher)
    check_difficulty(settings.selection.alkd_difficulty)
    check_losses(settings)
    _check_vectors(settings)
    from recbole_alkd.trainer.search_space import check_search

    check_search(settings)
    _check_files(settings)
    if _asks.get():
        teacher.check(settings)


def _check_files(settings: Settings) -> None:
    """AlkdError where a file that a setting names cannot be read, or does not hold what it should."""
    from recbole_alkd.active.policy.listed import read_picks
    from recbole_alkd.teacher.prices import read_prices
    from recbole_alkd.teacher.prompt import load_prompt
    from recbole_alkd.teacher.replay import read_recordings

    teacher = settings.teacher
    if settings.selection.alkd_policy == "listed":
        read_picks(settings.selection.alkd_picks)
    if teacher.llm_prompt:
        load_prompt(teacher.llm_prompt, "")
    if teacher.llm_price_file:
        read_prices(Path(teacher.llm_price_file))
    if teacher.llm_replay_file:
        read_recordings(teacher, Path(), "")


def _check_vectors(settings: Settings) -> None:
    """AlkdError where a backbone without vectors stands in a place that needs them."""
    student, teacher = settings.backbone.student_model, settings.backbone.teacher_model
    with_vectors = ", ".join(name for name in backbones if view_and_model(name)[0].has_vectors)
    counts = not view_and_model(student)[0].has_vectors
    if counts:
        _check_counting(settings)
    _check_text(settings, counts)
    if not view_and_model(teacher)[0].has_vectors:
        for name in wanted_losses(settings):
            if "teacher_vectors" in losses.get(name).needs:
                raise AlkdError(
                    f"kd_loss: {name!r} needs teacher_vectors, which teacher_model {teacher!r} does not have; "
                    f"allowed teacher_model: {with_vectors}"
                )


def _check_counting(settings: Settings) -> None:
    """AlkdError where a student that counts cannot learn what ``kd_`` settings ask for."""
    student, counting = settings.backbone.student_model, [name for name in losses if losses.get(name).gives_lists]
    for name in wanted_losses(settings):
        if name not in counting:
            raise AlkdError(
                f"kd_loss: {name!r} needs a gradient, which student_model {student!r} does not have; allowed: {', '.join(counting)}"
            )
    for key in ("kd_init", "kd_weight", "kd_rec_weight", "kd_learning_rate", "kd_negatives", "kd_batch_size"):
        if getattr(settings.distill, key) != FIELDS[key].default:
            raise AlkdError(f"{key}: has no effect with student_model {student!r}, which counts and has no steps; leave it out")


def _check_text(settings: Settings, counts: bool) -> None:
    """AlkdError where titles are asked for and not given, or given and not used."""
    text, student = settings.text, settings.backbone.student_model
    asked = [key for key in ("item_text_loss", "serve_text_dim") if getattr(text, key) is not None]
    if asked and counts:
        raise AlkdError(
            f"{asked[0]}: not for student_model {student!r}, which has no vectors; there item_text makes weighted edges of titles"
        )
    if asked and not text.item_text:
        raise AlkdError(f"item_text: ~ is not allowed with {asked[0]}; allowed: an encoder of titles, such as tfidf")
    used = asked or counts or any("item_text" in losses.get(name).needs for name in wanted_losses(settings))
    if text.item_text and not used:
        raise AlkdError(
            f"item_text: nothing uses it with student_model {student!r}; give item_text_loss, serve_text_dim or a kd_loss that "
            "looks at titles, or take a student that counts (SessionKNN)"
        )
