"""What can be wrong with the runs of a plan, found before the first one: settings, data, titles, files."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_alkd.bench.arms import CLOSED_FORM
from recbole_alkd.bench.plan import Plan
from recbole_alkd.bench.plan_settings import PATH_SETTINGS
from recbole_alkd.settings.error import AlkdError

LABELLED = ("distilled", "student_longer")  # stages that ask an LLM teacher


def check_runs(plan: Plan) -> None:
    """Build RecBole's Config of every arm on every data set and look whether its data is there;
    nothing is trained.

    Raises:
        AlkdError: what RecBole or a setting refuses, a data set that is not there or lacks titles for an arm
            that needs them.
    """
    for task in replace(plan, seeds=plan.seeds[:1]).tasks():
        try:
            if task.dataset.startswith("alkdrec-"):  # its settings apply where its files are
                _check_there(
                    task.dataset, Path(str(task.settings.get("data_path", "dataset"))) / task.dataset
                )
            config = config_of(task.dataset, task.arm.stage, task.settings)
            _check_there(task.dataset, Path(config["data_path"]))
            for key in PATH_SETTINGS:
                if config[key] and not Path(config[key].partition("#")[0]).is_file():
                    raise AlkdError(
                        f"{key}: no file {config[key].partition('#')[0]!r}, nor below the data path"
                    )
            _check_titles(task.arm.stage, config)
        except AlkdError as error:
            raise AlkdError(f"{task.dataset}, {task.backbone}, {task.arm.name}: {error}") from None


def config_of(dataset: str, stage: str, settings: Mapping[str, Any]) -> Any:
    """RecBole's Config of a run. Only for a stage that asks the LLM teacher are its device,
    extras and key looked for."""
    from recbole.config import Config

    from recbole_alkd.checks import asking_nobody
    from recbole_alkd.plugin import empty_argv

    with empty_argv(), nullcontext() if stage in LABELLED else asking_nobody():
        return Config(model="ALKDRec", dataset=dataset, config_dict=dict(settings))


def has_clicks(folder: Path, dataset: str) -> bool:
    """Whether ``folder`` has the clicks of a data set: in one file, or in one for each part."""
    name = glob.escape(dataset)
    return any(folder.glob(f"{name}.inter*")) or any(folder.glob(f"{name}.*.inter*"))


def _check_titles(stage: str, config: Any) -> None:
    """AlkdError where the titles, or the vectors of the user's own, that a run looks at are not there."""
    from recbole_alkd.data.titles import titles_of
    from recbole_alkd.registry import teachers
    from recbole_alkd.settings.rules import is_vector_file

    asked = stage in LABELLED and teachers.get(config["llm_teacher"]).needs_titles
    encoder = None if stage in (*CLOSED_FORM, "teacher") else config["item_text"]
    if encoder and is_vector_file(encoder):
        if not Path(encoder).expanduser().is_file():
            raise AlkdError(f"item_text: no file {encoder!r}, nor below the data path")
        encoder = None
    if asked or encoder:
        titles_of(config, config["ITEM_ID_FIELD"])


def _check_there(dataset: str, folder: Path) -> None:
    if not has_clicks(folder, dataset):
        hint = "give --data-path, the folder above" + _release(dataset)
        raise AlkdError(f"datasets: no {dataset}*.inter in {str(folder)!r}; {hint}")


def _release(dataset: str) -> str:
    """What to do about data that cannot be shipped."""
    if not dataset.startswith("alkdrec-"):
        return ""
    data = " --data Games" if dataset.endswith("games") else ""
    return (
        "; it is the paper's data, which only its authors give out: `recbole-alkd import alkdrec CLONE"
        f"{data} --out DATA/{dataset}` makes it of your clone of their release"
    )
