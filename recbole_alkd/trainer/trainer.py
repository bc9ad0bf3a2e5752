"""ALKDRecTrainer: teacher recommender -> student -> rounds of (select -> ask -> distil), and the control beside them.

Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based Recommendation" (AAAI 2025).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import calculate_valid_score, get_local_time, init_seed, set_color
from torch import nn

from recbole_alkd.data.titles import titles_of
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.labelling.instances import TrainingRows
from recbole_alkd.labelling.rounds import LabelRounds, teacher_log
from recbole_alkd.labels.ledger import FILE as LEDGER
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.backbone import Backbone, SessionRecommender
from recbole_alkd.registry import policies, teachers
from recbole_alkd.settings.error import AlkdError, during
from recbole_alkd.settings.identity import settings_hash, stage_seed
from recbole_alkd.teacher.base import LLMTeacher, TeacherContext
from recbole_alkd.teacher.replay import check_recordings, read_recordings
from recbole_alkd.trainer.deciding import ROLES, deciding_settings, plugin_sources, trains_on_titles, versions
from recbole_alkd.trainer.distilling import DistillingTrainer
from recbole_alkd.trainer.item_text import ItemText
from recbole_alkd.trainer.late_fusion import LateFusion
from recbole_alkd.trainer.logs import name_log, named_tensorboard
from recbole_alkd.trainer.report import STAGES
from recbole_alkd.trainer.run_folder import STAGES_FOLDER, RunFolder, StageFolder, shared_stage
from recbole_alkd.trainer.stage import StageOutcome
from recbole_alkd.trainer.tuning import RoleRun


class ALKDRecTrainer(DistillingTrainer):
    """RecBole trainer of ALKDRec.

    ``fit`` trains every stage and returns the distilled student's best validation score and result. ``evaluate`` on the
    test data evaluates every stage, prints the table, and writes ``result.json`` into the run folder.
    """

    def __init__(self, config: Any, model: ALKDRec) -> None:
        if not config["single_spec"]:
            raise AlkdError("nproc: ALKDRec runs in one process (its LLM teacher may use every device); allowed: 1")
        super().__init__(config, model)

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Any = None,
    ) -> tuple[float, Any]:
        """Run every stage. Arguments and result as RecBole's ``Trainer.fit``; both speak of the distilled student."""
        ending = {"callback_fn": callback_fn, "checkpoint": saved}
        self.train_until("student_longer", train_data, valid_data, verbose, show_progress, **ending)
        self.alkdrec.load_state_dict(self.outcomes["distilled"].state)
        self.model = self.alkdrec
        self.best_valid_result = valid = self.outcomes["distilled"].valid
        self.best_valid_score = calculate_valid_score(valid, self.valid_metric) if valid else -1
        return self.best_valid_score, valid

    def train_until(
        self, stage: str, train_data: Any, valid_data: Any = None, verbose: bool = True, show_progress: bool = False, **ending: Any
    ) -> None:
        """Train ``stage`` and what it rests on, and no more; ``outcomes`` holds what came out.

        Args:
            stage: teacher, student, distilled or student_longer (which goes on for as long as distillation did).
            ending: arguments of the distilled student's ``fit_stage``.
        """
        self._valid_data = valid_data
        fit = self._begin(train_data, valid_data, verbose, show_progress)
        try:
            self._train_until(stage, fit, train_data, show_progress, **ending)
        except BaseException:
            self.folder.close()  # in a notebook the trainer lives on, and the next run resumes in this folder
            raise

    def _train_until(
        self, stage: str, fit: Callable[..., StageOutcome], train_data: Any, show_progress: bool, **ending: Any
    ) -> None:
        rows = TrainingRows(train_data, self.settings)
        if self.item_text and stage != "teacher":
            _ = self.item_text.vectors  # an encoder that cannot be had ends the run before anything is trained
        if stage == "student":
            self._student(fit, train_data)
            return
        titles: Mapping[str, str] = {}
        if stage != "teacher":
            titles = self._titles(rows)
            rows.check_candidates()
            rows.check_budget()
        recommender = self._recommender(fit, train_data)
        if stage == "teacher":
            return
        self._student(fit, train_data)
        rows.recommender_config = self.runs["teacher"].config
        folds = self._folds(rows, train_data, fit)
        llm = self._llm_teacher(rows, recommender, folds, titles, show_progress)
        try:
            self.rounds = self._label_rounds(rows, recommender, llm, folds, show_progress)
            count = self.settings.selection.alkd_rounds
            for number in range(1, count + 1):
                with during("labelling"):
                    self.rounds.run(number)
                if number < count:
                    name = f"distilled_{number}"
                    self.outcomes[name] = self.distil(fit, name, rows, recommender, self.settings)
                else:
                    self.outcomes["distilled"] = self.distil_last(fit, rows, recommender, **ending)
        finally:
            self.lora_report = llm.lora_report
            llm.close()
        if stage == "student_longer":
            self.outcomes["student_longer"] = self.train_longer(fit)

    def select(
        self, train_data: Any, valid_data: Any = None, show_progress: bool = False, titles: bool = True
    ) -> tuple[LabelRounds, np.ndarray]:
        """Select the whole budget at once and ask nobody; the LLM teacher is not loaded.

        Without ``titles`` a data set that has none will do, since nothing is shown to anybody.

        Trains the teacher recommender, and the student where the policy looks at it. A later run with the same settings
        goes on from there.

        Returns:
            The rounds, whose ``llm`` the caller closes, and the row ids that are selected.
        """
        if self.settings.selection.alkd_ratio == "pilot":
            raise AlkdError("alkd_ratio: 'pilot' needs labels, and nobody is asked here; allowed here: three numbers")
        fit = self._begin(train_data, valid_data, True, show_progress)
        rows = TrainingRows(train_data, self.settings)
        shown: Mapping[str, str] = {}
        if titles:
            shown = self._titles(rows)
            rows.check_candidates()
        rows.check_budget()
        recommender = self._recommender(fit, train_data)
        if policies.get(self.settings.selection.alkd_policy).needs & {"entropy", "disagreement"}:
            self._student(fit, train_data)
        rows.recommender_config = self.runs["teacher"].config
        folds = self._folds(rows, train_data, fit)
        llm = self._llm_teacher(rows, recommender, folds, shown, show_progress)
        rounds = self._label_rounds(rows, recommender, llm, folds, show_progress)
        return rounds, rounds.select_all()

    def _begin(self, train_data: Any, valid_data: Any, verbose: bool, show_progress: bool) -> Callable[..., StageOutcome]:
        """Open the run folder; gives back ``fit_stage`` for this run's data."""
        if self.settings.backbone.student_tune and (not valid_data or self.config["eval_step"] <= 0):
            raise AlkdError("student_tune: settings are chosen on validation and this run has none; allowed: 0")
        self.train_part = train_data._dataset
        self.train_part.check_catalogue()
        self.item_text = ItemText(self.settings.text, self.train_part) if self.settings.text.item_text else None
        if self.item_text:
            _ = self.item_text.titles  # what is wrong with them is said before anything is trained
        rows = TrainingRows(train_data, self.settings)
        self._check_recordings(rows)
        self.folder = self._open_folder(rows)
        name_log(self.folder.path.name)
        self.tensorboard = named_tensorboard(self._loggers[0], self.folder.path.name)
        self._loggers = (self.tensorboard, self._loggers[1])
        self._say_data(train_data, valid_data)
        self.saved_model_file = str(self.folder.path / f"{self.config['model']}.pth")
        self.models = dict.fromkeys(STAGES, self.alkdrec)
        loop = {"valid_data": valid_data, "verbose": verbose, "show_progress": show_progress}
        fusion = None
        if self.item_text and self.settings.text.serve_text_dim:
            fusion = LateFusion(self.item_text, self.alkdrec)

        def fit(name: str, model: nn.Module, run: RoleRun, number: int | None = None, **how: Any) -> StageOutcome:
            """``number``: of the try that this is, where the stage is tuned."""
            shown = name if number is None else f"{name}_tune_{number:02d}"
            how = {**loop, "train_data": run.train_data, "config": run.config, "shown": shown, **how}
            if model is not self.alkdrec:
                with self._stage_folder(name, shown, run, valid_data) as folder:
                    return self.fit_stage(folder, name, model, **how)
            if self.item_text:
                _ = self.item_text.vectors  # their seconds are in the bill of the titles, not in those of the first stage
            with self._stage_folder(name, shown, run, valid_data) as folder, self.item_term(name, run):
                outcome = self.fit_stage(folder, name, model, fusion=fusion, **how)
            if fusion and folder.shared and shown == name:
                self.folder.save_stage(name, asdict(outcome))  # as it is served; what is shared is the student by itself
            return outcome

        return fit

    def _say_data(self, train_data: Any, valid_data: Any) -> None:
        part = train_data._dataset
        sessions = len(np.unique(part.inter_feat[part.uid_field].numpy()))
        valid = f"{len(valid_data._dataset):,} validation sessions" if valid_data else "no validation sessions"
        words = f"{sessions:,} training sessions ({len(part):,} rows), {valid}, {part.item_num - 1:,} items"
        self.logger.info(set_color("data", "blue") + f": {self.config['dataset']}: {words}")

    @contextmanager
    def _stage_folder(self, name: str, shown: str, run: RoleRun, valid_data: Any) -> Iterator[StageFolder]:
        """Where a stage is kept: in the run folder, or in ``stage_cache`` for all runs that would train it alike.

        Alike are runs with the same deciding settings, rows, titles (where the stage looks at them), plug-ins and versions.
        """
        cache = self.settings.backbone.stage_cache
        if cache is False or name not in ROLES:
            yield self.folder if shown == name else self.folder.below(shown)
            return
        train_data, values = run.train_data, deciding_settings(run.config, run.settings, roles=(name,), labels=False, served=False)
        data = [TrainingRows(part, self.settings).fingerprint() for part in (train_data, valid_data) if part is not None]
        reads = name == "student" and trains_on_titles(self.settings)
        facts = {**values, "stage": name, "rows": data, **self._surroundings(titles=reads)}
        root = Path(str(cache)) if cache else Path(self.checkpoint_dir) / STAGES_FOLDER
        with shared_stage(root, name, facts) as folder:
            yield folder
            if shown == name:
                folder.lend(name, self.folder)  # the run folder stays complete when the shared one is pruned

    def _surroundings(self, titles: bool) -> dict[str, Any]:
        """What decides a result besides settings and rows."""
        found: dict[str, Any] = {"versions": versions(), "plug-ins": plugin_sources(self.settings)}
        if titles and self.item_text:
            found["titles"] = hashlib.sha256(self.item_text.vectors.tobytes()).hexdigest()
        return found

    def _recommender(self, fit: Callable[..., StageOutcome], train_data: Any) -> Backbone:
        """The trained and frozen teacher recommender."""
        seed = partial(self._seed, "teacher init")
        seed()
        model = SessionRecommender(self.config, train_data._dataset, self.settings, "teacher").to(self.device)
        self.models["teacher"] = model
        self.train_role("teacher", model, fit, train_data, seed)
        return model.eval().requires_grad_(False).view

    def _student(self, fit: Callable[..., StageOutcome], train_data: Any) -> None:
        """The student before there are labels."""
        # as run_recbole does before it builds the model
        seed = partial(init_seed, self.config["seed"] + self.config["local_rank"], self.config["reproducibility"])
        self.train_role("student", self.alkdrec, fit, train_data, seed)

    def _label_rounds(
        self, rows: TrainingRows, recommender: Backbone, llm: LLMTeacher, folds: Folds, show_progress: bool
    ) -> LabelRounds:
        ledger = self.folder.path / LEDGER
        served, seed = self.alkdrec.served, self.config["seed"]
        return LabelRounds(rows, recommender, served, llm, folds, seed, self.device, show_progress, ledger)

    def _open_folder(self, rows: TrainingRows) -> RunFolder:
        values = deciding_settings(self.config, self.settings)
        digest = settings_hash({**values, "data": rows.fingerprint(), **self._surroundings(titles=True)})
        prefix = f"{self.config['model']}-{self.config['dataset']}"
        folder = RunFolder.open(self.checkpoint_dir, prefix, get_local_time(), digest)
        note = " (resumes an unfinished run)" if folder.resumed else ""
        self.logger.info(set_color("run folder", "blue") + f": {folder.path}{note}")
        return folder

    def _folds(self, rows: TrainingRows, train_data: Any, fit: Any) -> Folds:
        def train_fold(fold: int, kept: np.ndarray) -> Backbone:
            """The teacher recommender without one fold, for as many epochs as the full one took to its best."""
            self._seed("fold init", fold)
            run = self.runs["teacher"]
            model = SessionRecommender(run.config, train_data._dataset, run.settings, "teacher").to(self.device)
            loader = self.row_loader(train_data, kept, run.batch_size, run.backwards(model))
            epochs = max(1, self.outcomes["teacher"].best_epoch)
            # a table chooses its settings on the validation data, as the full one did; epochs tell it nothing
            how = {"valid_data": None} if model.view.has_vectors else {}
            fit(f"teacher_fold{fold}", model, run, batches=loader, epochs=epochs, **how)
            return model.eval().requires_grad_(False).view

        rng = np.random.default_rng(stage_seed(self.config["seed"], "folds"))
        return Folds(rows.session_ids, self.settings.lora.lora_folds, rng, train_fold)

    def _titles(self, rows: TrainingRows) -> Mapping[str, str]:
        """The titles that the LLM teacher is shown; {} where it needs none."""
        if not teachers.get(self.settings.teacher.llm_teacher).needs_titles:
            return {}
        return titles_of(self.config, rows.item_field, rows.tokens[1:].tolist())

    def _llm_teacher(
        self, rows: TrainingRows, recommender: Backbone, folds: Folds, titles: Mapping[str, str], show_progress: bool
    ) -> LLMTeacher:
        teacher_class = teachers.get(self.settings.teacher.llm_teacher)
        data_path, dataset = Path(self.config["data_path"]), self.config["dataset"]
        examples, key = partial(rows.lora_examples, folds), rows.lora_key()
        if self.settings.lora.lora and self.settings.lora.lora_target == "replay" and teacher_class is teachers.get("local"):
            recorded = read_recordings(self.settings.teacher, data_path, dataset)
            examples, key = partial(rows.replay_examples, folds, recorded.rankings), rows.lora_key(recorded.digest)
        return teacher_class(
            TeacherContext(
                settings=self.settings,
                dataset=dataset,
                data_path=data_path,
                titles=titles,
                cache=Path(self.settings.teacher.label_store).parent,
                lora_examples=examples,
                lora_held_out=partial(rows.lora_held_out, folds),
                lora_key=key,
                show_progress=show_progress,
                log_metric=teacher_log(*self._loggers),
                device=str(self.device),
                hint_cases=partial(rows.hint_cases, recommender, self.device),
                hint_key=rows.hint_key(),
                items=frozenset(rows.tokens[1:].tolist()),
            )
        )

    def _check_recordings(self, rows: TrainingRows) -> None:
        """Recorded rankings of other data are found before anything is trained."""
        teacher, lora = self.settings.teacher, self.settings.lora
        imitated = teacher.llm_teacher == "local" and lora.lora and lora.lora_target == "replay"
        if teacher.llm_teacher == "replay" or imitated:
            recorded = read_recordings(teacher, Path(self.config["data_path"]), self.config["dataset"])
            check_recordings(recorded, rows.sessions.tolist(), rows.tokens[1:].tolist())
