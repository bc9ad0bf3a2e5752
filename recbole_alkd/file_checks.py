"""Files and folders of a run, looked at before anything is trained."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

from recbole_alkd.distill.combined import wanted_losses
from recbole_alkd.labels.store import check_label_store
from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.registry import backbones, losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.places import check_folder, check_new_file

asks: ContextVar[bool] = ContextVar("asks", default=True)


def check_files(settings: Settings) -> None:
    """AlkdError where a file that a setting names cannot be read, or does not hold what it should."""
    from recbole_alkd.active.policy.listed import read_picks
    from recbole_alkd.llm.prices import read_prices
    from recbole_alkd.teacher.prompt import load_prompt
    from recbole_alkd.teacher.replay import read_recordings

    teacher = settings.teacher
    check_label_store(teacher.label_store)
    if settings.selection.alkd_policy == "listed":
        read_picks(settings.selection.alkd_picks)
    if teacher.llm_prompt:
        load_prompt(teacher.llm_prompt, "")
    if teacher.llm_price_file:
        read_prices(Path(teacher.llm_price_file))
    check_places(settings)
    if teacher.llm_replay_file:
        read_recordings(teacher, Path(), "", settings.selection.alkd_unit)


def check_places(settings: Settings) -> None:
    """AlkdError where labels or shared stages cannot be written."""
    if asks.get():
        check_new_file("label_store", Path(settings.teacher.label_store).expanduser())
    if isinstance(settings.backbone.stage_cache, str):
        check_folder("stage_cache", Path(settings.backbone.stage_cache))


def check_data_files(settings: Settings, data_path: Path, dataset: str) -> None:
    """AlkdError where a file that belongs beside the data set's is needed and not there."""
    from recbole_alkd.teacher.replay import read_recordings

    lora = settings.lora
    imitates = settings.teacher.llm_teacher == "local" and lora.lora and lora.lora_target == "replay"
    if asks.get() and (settings.teacher.llm_teacher == "replay" or imitates):
        read_recordings(settings.teacher, data_path, dataset, settings.selection.alkd_unit)


def check_vectors(settings: Settings) -> None:
    """AlkdError where a backbone without vectors stands in a place that needs them."""
    from recbole_alkd.learner.base import learner_class

    learner_class(settings.backbone.student_model).check(settings)
    teacher, needs = settings.backbone.teacher_model, {"teacher_scores", "teacher_vectors"}
    for name in wanted_losses(settings):
        missing = losses.get(name).needs & needs - view_and_model(teacher)[0].teaches()
        if missing:
            can = [model for model in backbones if not missing - view_and_model(model)[0].teaches()]
            raise AlkdError(
                f"kd_loss: {name!r} needs {' and '.join(sorted(missing))}, which teacher_model {teacher!r} "
                "does not have; "
                f"allowed teacher_model: {', '.join(can)}"
            )
