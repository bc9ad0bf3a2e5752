"""One trial of a search: a run up to the stage that is searched, scored on validation, never on test."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.runs import holds_labels
from recbole_alkd.tune.space import Axis

STAGES = ("distilled", "student", "teacher")
Report = Callable[[int, float], None]  # (epoch, validation score); may raise, which ends the trial


@dataclass(frozen=True)
class Search:
    """What all trials of a search have in common.

    Attributes:
        model, dataset, config_files: as ``run_recbole_alkd`` takes them.
        stage: of ALKDRec, which stage's score counts.
        settings: laid over the files, for every trial (the command line is read by RecBole itself).
    """

    model: str
    dataset: str | None
    config_files: Sequence[str] | None
    stage: str
    settings: Mapping[str, Any]

    def config(self, values: Mapping[str, Any]) -> Any:
        """RecBole's Config of a trial with ``values``, checked as that of a run."""
        from recbole.config import Config

        files = list(self.config_files) if self.config_files else None
        return Config(self.model, self.dataset, files, {**self.settings, **values})

    def identity(self, space: Mapping[str, Axis], metric: str, given: Mapping[str, Any], data: str) -> str:
        """What makes a search this one. A resumed start has the same.

        Args:
            given: settings of the command line and files that decide what comes out.
            data: ``data_fingerprint``, so that scores on other sessions are never compared with these.
        """
        facts = {
            "model": self.model, "dataset": self.dataset, "stage": self.stage, "metric": metric,
            "data": data, "given": given, "space": {key: str(axis) for key, axis in space.items()},
        }  # fmt: skip
        return json.dumps(facts, sort_keys=True, default=str)


class DivergedError(Exception):
    """A trial whose loss is no number: its settings do not work, others may."""


def run_trial(
    search: Search, values: Mapping[str, Any], report: Report, name: str
) -> tuple[float, dict[str, float]]:
    """Train with ``values`` and give the best score on validation, and RecBole's metrics there.

    Args:
        report: is told of each validation of the stage that is searched.
        name: of the trial, for an error.

    Raises:
        DivergedError: the loss is no number. AlkdError: values that cannot work; the message names the trial.
    """
    try:
        return _train(search, values, report)
    except ValueError as error:
        if "loss is nan" in str(error).lower() or "nan (not a number)" in str(error):
            raise DivergedError(" ".join(str(error).split())) from error
        if isinstance(error, AlkdError):
            raise AlkdError(f"{name}: {error}") from error
        raise


def _train(search: Search, values: Mapping[str, Any], report: Report) -> tuple[float, dict[str, float]]:
    from recbole.data import create_dataset, data_preparation
    from recbole.quick_start import quick_start
    from recbole.utils import calculate_valid_score, get_model, get_trainer, init_seed

    from recbole_alkd.processes.group import Group

    config = search.config(values)
    init_seed(config["seed"], config["reproducibility"])
    quick_start.init_logger(config)
    _only_warnings()
    train, valid, _ = data_preparation(config, create_dataset(config))
    Group.of(config).seed_model(config)
    model = get_model(config["model"])(config, train._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    if config["model"] != "ALKDRec":
        score, result = trainer.fit(
            train, valid, verbose=False, saved=False, show_progress=False, callback_fn=report
        )
        return float(score), {key: float(value) for key, value in result.items()}
    trainer.train_until(search.stage, train, valid, verbose=False, callback_fn=report)
    run = trainer.run
    result = run.outcomes[search.stage].valid
    run.folder.close()
    if not holds_labels(run.folder.path):
        shutil.rmtree(run.folder.path)  # its stages are kept beside it, for the trials that share them
    return float(calculate_valid_score(result, trainer.stage_trainer.valid_metric)), result


def _only_warnings() -> None:
    """A trial is one line on the screen; the rest of what it says is in its log file."""
    from recbole_alkd.trainer.console import is_console

    for handler in logging.getLogger().handlers:
        if is_console(handler):
            handler.setLevel(logging.WARNING)
