"""What a run has: its settings, data, folder and learners, made once, and what its stages leave behind."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import get_local_time, init_seed, set_color

from recbole_alkd.labelling.training_rows import TrainingRows
from recbole_alkd.learner.base import Learner, Workshop, learner_class
from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.learner.stage_folder import FollowedFolder, StageFolder, seen_by, shared_stage
from recbole_alkd.learner.stage_task import StageTask
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.identity import settings_hash, stage_seed
from recbole_alkd.trainer.group_labels import GroupLabels
from recbole_alkd.trainer.identity import ROLES, outcome_settings, plugin_sources, trains_on_titles, versions
from recbole_alkd.trainer.labels import RunLabels, check_recordings_of
from recbole_alkd.trainer.logs import name_log, named_tensorboard
from recbole_alkd.trainer.run_folder import STAGES_FOLDER, RunFolder


@dataclass
class Run:
    """A run of ALKDRec.

    Attributes:
        config: RecBole's Config. settings: ours in it. group: the processes of the run.
        model: the student. trainer: RecBole's trainer, which evaluates, logs and runs fit loops.
        train_data, valid_data: RecBole's loaders; ``valid_data`` may be None. rows: the training rows.
        text: the title vectors of a run that uses some. folder: where the run is kept. began: seconds since
            1970.
        show_progress: as in RecBole's ``fit``.
        learners: role -> how its recommender learns. labels: who is asked, and what came of it.
        models: role -> its trained recommender. outcomes: stage -> what it left behind.
        roles: role -> the run as its trained recommender, and what follows from it, sees it.
        loss_settings: stage -> the run's settings, with those of the loss that validation chose for it.
        tuned: stage -> what ``student_tune`` tried for it and what won.
    """

    config: Any
    settings: Settings
    group: Group
    model: ALKDRec
    trainer: StageTrainer
    train_data: Any
    valid_data: Any
    rows: TrainingRows
    text: ItemText | None
    folder: RunFolder | FollowedFolder
    began: float
    show_progress: bool
    learners: dict[str, Learner]
    models: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, StageOutcome] = field(default_factory=dict)
    roles: dict[str, RoleRun] = field(default_factory=dict)
    loss_settings: dict[str, Settings] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.own_labels = RunLabels(self)
        self.labels: RunLabels | GroupLabels = self.own_labels
        if self.group.count > 1:
            self.labels = GroupLabels(self.own_labels, self, self.group)

    @classmethod
    def open(
        cls,
        trainer: StageTrainer,
        model: ALKDRec,
        settings: Settings,
        group: Group,
        train_data: Any,
        valid_data: Any,
        began: float | None = None,
        verbose: bool = True,
        show_progress: bool = False,
    ) -> Run:
        """Check the data against the settings, and open the run's folder; an unfinished run of the same
        settings resumes.

        Raises:
            AlkdError: data that does not go with the settings.
        """
        config, part = trainer.config, train_data._dataset
        if settings.backbone.student_tune and (not valid_data or config["eval_step"] <= 0):
            raise AlkdError(
                "student_tune: settings are chosen on validation and this run has none; allowed: 0"
            )
        part.check_catalogue()
        valid_part = valid_data._dataset if valid_data else None
        text = ItemText(settings.text, part, valid_part) if settings.text.item_text else None
        if text:
            text.check()  # what is wrong with them is said before anything is trained
        rows = TrainingRows(train_data, settings)
        check_recordings_of(config, settings, rows)
        folder = _open_folder(trainer, settings, rows, text, group)
        if group.leads:
            name_log(folder.path.name)
            trainer.move_into(folder.path, named_tensorboard(trainer.loggers[0], folder.path.name))
        _say_data(trainer, train_data, valid_data)
        workshop = Workshop(trainer, config, settings, valid_data, verbose, show_progress, text, group)
        learners = {
            role: learner_class(getattr(settings.backbone, f"{role}_model"))(workshop) for role in ROLES
        }
        return cls(
            config, settings, group, model, trainer, train_data, valid_data, rows, text, folder,
            began or time.time(), show_progress, learners,
        )  # fmt: skip

    @property
    def train_part(self) -> Any:
        """The training part of the data set."""
        return self.train_data._dataset

    @property
    def device(self) -> torch.device:
        return self.trainer.device

    @property
    def recommender(self) -> Backbone:
        """The trained and frozen teacher recommender."""
        return self.models["teacher"].view

    def model_of(self, stage: str) -> Any:
        """The model that the state of a stage belongs to."""
        return self.models["teacher" if stage == "teacher" else "student"]

    def seed(self, *names: object) -> None:
        """Seed every generator by the run's seed and these names."""
        init_seed(stage_seed(self.config["seed"], *names), self.config["reproducibility"])

    @contextmanager
    def task(
        self,
        name: str,
        role_run: RoleRun,
        number: int | None = None,
        checkpoint: Callable[[StageOutcome], bool] | None = None,
        callback: Callable[[int, float], None] | None = None,
    ) -> Iterator[StageTask]:
        """A stage as a learner is given it, with the folder where it is kept.

        That is the run's, or one in ``stage_cache`` for all runs that would train it alike: with the same
        settings that decide its outcome, rows, titles (where the stage looks at them), plug-ins and versions.

        Args:
            role_run: under which it is trained. number: of the try that this is, where the stage is tuned.
            checkpoint, callback: as ``StageTask`` has them.
        """
        shown = name if number is None else f"{name}_tune_{number:02d}"
        cache, group = self.settings.backbone.stage_cache, self.group
        callback = callback if group.leads else None
        if cache is False or name not in ROLES:
            own: StageFolder = self.folder if shown == name else self.folder.below(shown)
            yield StageTask(name, shown, seen_by(group, own), None, checkpoint, callback)
            return
        root = Path(str(cache)) if cache else Path(self.trainer.checkpoint_dir) / STAGES_FOLDER
        with self._shared_folder(root, name, role_run) as folder:
            lent = seen_by(group, self.folder) if shown == name else None
            yield StageTask(name, shown, seen_by(group, folder), lent, checkpoint, callback)
            if shown == name:
                folder.lend(name, self.folder)  # the run folder stays complete when the shared one is pruned

    def _shared_folder(self, root: Path, name: str, role_run: RoleRun) -> AbstractContextManager[StageFolder]:
        if self.group.leads:
            return shared_stage(root, name, self._stage_facts(name, role_run))
        return nullcontext(FollowedFolder(root / name, shared=True))

    def _stage_facts(self, name: str, role_run: RoleRun) -> dict[str, Any]:
        """All that decides a stage before there are labels."""
        values = outcome_settings(
            role_run.config, role_run.settings, roles=(name,), labels=False, served=False
        )
        parts = [part for part in (role_run.train_data, self.valid_data) if part is not None]
        data = [TrainingRows(part, self.settings).fingerprint() for part in parts]
        reads = name == "student" and trains_on_titles(self.settings)
        around = surroundings(self.settings, self.text if reads else None)
        return {**values, "stage": name, "rows": data, **around}


def surroundings(settings: Settings, text: ItemText | None) -> dict[str, Any]:
    """What decides a result besides settings and rows."""
    facts: dict[str, Any] = {"versions": versions(), "plug-ins": plugin_sources(settings)}
    if text:
        facts["titles"] = hashlib.sha256(text.vectors.tobytes()).hexdigest()
    return facts


def _open_folder(
    trainer: StageTrainer, settings: Settings, rows: TrainingRows, text: ItemText | None, group: Group
) -> RunFolder | FollowedFolder:
    config = trainer.config
    values = outcome_settings(config, settings)
    digest = settings_hash({**values, "data": rows.fingerprint(), **surroundings(settings, text)})
    prefix = f"{config['model']}-{config['dataset']}"
    leads = group.from_leader(lambda: digest)
    if group.any(digest != leads):
        raise AlkdError(
            "nproc: the processes have different settings, data or versions; allowed: the same everywhere"
        )
    if not group.leads:
        return FollowedFolder(Path(group.from_leader(str)))
    folder = RunFolder.open(trainer.checkpoint_dir, prefix, get_local_time(), digest)
    group.from_leader(lambda: str(folder.path))
    note = " (resumes an unfinished run)" if folder.resumed else ""
    trainer.logger.info(set_color("run folder", "blue") + f": {folder.path}{note}")
    return folder


def _say_data(trainer: StageTrainer, train_data: Any, valid_data: Any) -> None:
    part = train_data._dataset
    sessions = len(np.unique(part.inter_feat[part.uid_field].numpy()))
    valid = f"{len(valid_data._dataset):,} validation sessions" if valid_data else "no validation sessions"
    words = f"{sessions:,} training sessions ({len(part):,} rows), {valid}, {part.item_num - 1:,} items"
    trainer.logger.info(set_color("data", "blue") + f": {trainer.config['dataset']}: {words}")
