"""ALKDRecTrainer: teacher recommender -> student -> rounds of (select -> ask -> distil), and the control beside them.

Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based Recommendation" (AAAI 2025).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import calculate_valid_score, get_local_time, init_seed, set_color
from torch import Tensor, nn

from recbole_alkd.active.policy.base import Selection
from recbole_alkd.config import FIELDS, AlkdError, read_settings, settings_hash, stage_seed
from recbole_alkd.data.titles import load_titles
from recbole_alkd.distill.base import DistillContext
from recbole_alkd.distill.combined import build_loss
from recbole_alkd.labels import Budget, Label, LabelStore
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.backbone import Backbone, SessionRecommender
from recbole_alkd.registry import policies, teachers
from recbole_alkd.teacher.base import LLMTeacher, TeacherContext
from recbole_alkd.teacher.labelling import Bill, collect_labels
from recbole_alkd.trainer.distillation import DistillationTerm
from recbole_alkd.trainer.instances import TrainingRows
from recbole_alkd.trainer.report import STAGES, TestResult, bill_lines, certificate, stage_table
from recbole_alkd.trainer.run_folder import RESULT, RunFolder
from recbole_alkd.trainer.stage import CycledBatches, StageOutcome, StageTrainer, peak_memory_mb

# RecBole settings that do not change a result, and so do not make another run of it.
VOLATILE = {"show_progress", "state", "checkpoint_dir", "log_wandb", "wandb_project", "gpu_id", "device", "save_dataset",
            "dataset_save_path", "save_dataloaders", "dataloaders_save_path", "label_store", "llm_threads", "local_rank",
            "config_files", "data_path", "worker"}  # fmt: skip


class ALKDRecTrainer(StageTrainer):
    """RecBole trainer of ALKDRec.

    ``fit`` trains every stage and returns the distilled student's best validation score and result. ``evaluate`` on the
    test data evaluates every stage, prints the table, and writes ``result.json`` into the run folder.
    """

    def __init__(self, config: Any, model: ALKDRec) -> None:
        if not config["single_spec"]:
            raise AlkdError("nproc: ALKDRec runs in one process (its LLM teacher may use every device); allowed: 1")
        super().__init__(config, model)
        self.settings = read_settings({key: config[key] for key in FIELDS if key in config})
        self.alkdrec = model
        self.folder: RunFolder | None = None
        self.outcomes: dict[str, StageOutcome] = {}
        self.models: dict[str, nn.Module] = {}
        self.selection: list[tuple[Selection, list[str]]] = []
        self.bill = Bill()
        self.labels: dict[int, Label] = {}
        self._pool_size = 0
        self._lora: dict[str, Any] | None = None
        self._valid_data: Any = None

    # -- fit ----------------------------------------------------------------------------------------------------------

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
        self._valid_data = valid_data
        rows = TrainingRows(train_data, self.settings)
        self.folder = self._open_folder(rows)
        self.saved_model_file = str(self.folder.path / f"{self.config['model']}.pth")
        loop: dict[str, Any] = {"verbose": verbose, "show_progress": show_progress}
        fit = partial(self.fit_stage, self.folder, train_data=train_data, valid_data=valid_data, **loop)

        init_seed(stage_seed(self.config["seed"], "teacher init"), self.config["reproducibility"])
        recommender = SessionRecommender(self.config, train_data._dataset, self.settings, "teacher").to(self.device)
        self.models = dict.fromkeys(("student", "student_longer", "distilled"), self.alkdrec) | {"teacher": recommender}
        self.outcomes["teacher"] = fit("teacher", recommender)
        recommender.eval().requires_grad_(False)
        self.outcomes["student"] = fit("student", self.alkdrec)

        llm = self._llm_teacher(rows, recommender, train_data, loop)
        try:
            for number in range(1, self.settings.selection.alkd_rounds + 1):
                last = number == self.settings.selection.alkd_rounds
                self._label_round(rows, recommender.view, llm, number, show_progress)
                name = "distilled" if last else f"distilled_{number}"
                ending = {"callback_fn": callback_fn, "checkpoint": saved} if last else {}
                self.outcomes[name] = self._distil(fit, name, rows, recommender.view, train_data, **ending)
        finally:
            self._lora = llm.lora_report
            llm.close()
        self.outcomes["student_longer"] = self._train_longer(fit, train_data)
        self.alkdrec.load_state_dict(self.outcomes["distilled"].state)
        self.model = self.alkdrec
        valid = self.outcomes["distilled"].valid
        self.best_valid_result = valid
        self.best_valid_score = calculate_valid_score(valid, self.valid_metric) if valid else -1
        return self.best_valid_score, valid

    def _open_folder(self, rows: TrainingRows) -> RunFolder:
        values = {key: value for key, value in self.config.final_config_dict.items() if key not in VOLATILE}
        digest = settings_hash({**values, "data": rows.fingerprint()})
        prefix = f"{self.config['model']}-{self.config['dataset']}"
        folder = RunFolder.open(self.checkpoint_dir, prefix, get_local_time(), digest)
        self.logger.info(
            set_color("run folder", "blue") + f": {folder.path}" + (" (goes on with an unfinished run)" if folder.resumed else "")
        )
        return folder

    # -- labels -------------------------------------------------------------------------------------------------------

    def _llm_teacher(
        self, rows: TrainingRows, recommender: SessionRecommender, train_data: Any, loop: dict[str, Any]
    ) -> LLMTeacher:
        teacher_class = teachers.get(self.settings.teacher.llm_teacher)
        data_path = Path(self.config["data_path"])
        titles: Mapping[str, str] = {}
        if teacher_class.needs_titles:
            titles = load_titles(
                data_path, self.config["dataset"], rows.item_field, self.settings.session.title_field, items=rows.tokens[1:].tolist()
            )

        def fold_view(fold: int, kept: np.ndarray) -> Backbone:
            """The teacher recommender of one fold: as many epochs as the full one took to its best."""
            init_seed(stage_seed(self.config["seed"], "fold init", fold), self.config["reproducibility"])
            model = SessionRecommender(self.config, train_data._dataset, self.settings, "teacher").to(self.device)
            loader = self.row_loader(train_data, kept, self.config["train_batch_size"])
            assert self.folder is not None
            self.fit_stage(
                self.folder, f"teacher_fold{fold}", model, train_data=train_data, valid_data=None, batches=loader,
                epochs=max(1, self.outcomes["teacher"].best_epoch), **loop,
            )  # fmt: skip
            return model.eval().requires_grad_(False).view

        def log_metric(name: str, value: float, step: int) -> None:
            self._loggers[0].add_scalar(name, value, step)
            self._loggers[1].log_metrics({name: value}, head="")

        store = Path(self.settings.teacher.label_store)
        return teacher_class(
            TeacherContext(
                settings=self.settings,
                dataset=self.config["dataset"],
                data_path=data_path,
                titles=titles,
                cache=store.parent,
                lora_examples=partial(rows.lora_examples, fold_view),
                lora_key=rows.lora_key(),
                show_progress=loop["show_progress"],
                log_metric=log_metric,
                device=str(self.device),
            )
        )

    def _label_round(self, rows: TrainingRows, recommender: Backbone, llm: LLMTeacher, number: int, show_progress: bool) -> None:
        """Select this round's share of the budget, ask the LLM teacher, keep the labels."""
        selection = self.settings.selection
        pool_rows = rows.pool_rows(llm.can_label)
        self._pool_size = len(pool_rows)
        pool_rows = np.setdiff1d(pool_rows, list(self.labels), assume_unique=True)
        left, rounds_left = selection.budget_labels - len(self.labels), selection.alkd_rounds - number + 1
        size = -(-left // rounds_left)
        self.alkdrec.eval()
        pool = rows.pool(pool_rows, recommender, self.alkdrec.view, self.device)
        policy = policies.get(selection.alkd_policy)(selection)
        chosen = policy.select(pool, size, np.random.default_rng(stage_seed(self.config["seed"], "select", number)))
        self.selection.append((chosen, [str(s) for s in pool.sessions[chosen.picks]]))
        words = [f"round {number}: {len(chosen.picks)} of {len(pool)} instances by {selection.alkd_policy}"]
        if chosen.value is not None:
            words.append(certificate(vars(chosen)))
        if chosen.filled:
            words.append(f"{chosen.filled} from outside of the support")
        self.logger.info(set_color("selection", "blue") + " " + ", ".join(words))
        instances = rows.instances(pool_rows[chosen.picks], recommender, self.device)
        with LabelStore(self.settings.teacher.label_store) as store:
            budget = Budget(labels=size, tokens=self._tokens_left(), usd=self._usd_left())
            found = collect_labels(llm, instances, store, budget, show_progress=show_progress)
        self.labels.update(found.labels)
        self.bill = self.bill + found.bill
        if not self.labels:
            raise AlkdError(
                f"llm_teacher {self.settings.teacher.llm_teacher!r} gave no usable label for {len(instances)} instances "
                f"({found.bill.failed} failed): nothing to distil; see the label store {self.settings.teacher.label_store}"
            )

    def _tokens_left(self) -> int | None:
        limit = self.settings.selection.budget_tokens
        return None if limit is None else limit - self.bill.prompt_tokens - self.bill.completion_tokens

    def _usd_left(self) -> float | None:
        limit = self.settings.selection.budget_usd
        return None if limit is None else limit - (self.bill.usd or 0.0)

    # -- students -----------------------------------------------------------------------------------------------------

    def _distil(
        self, fit: Any, name: str, rows: TrainingRows, recommender: Backbone, train_data: Any, **ending: Any
    ) -> StageOutcome:
        """Distil the labels into the student, from where ``kd_init`` says."""
        settings = self.settings.distill
        model = self.alkdrec
        if settings.kd_init == "student":
            model.load_state_dict(self.outcomes["student"].state)
        else:
            init_seed(stage_seed(self.config["seed"], "scratch"), self.config["reproducibility"])
            fresh = type(model)(self.config, train_data._dataset).to(self.device)
            model.load_state_dict(fresh.state_dict())
        context = DistillContext(
            settings=self.settings,
            student=model.view,
            teacher=recommender,
            n_items=model.n_items,
            train_interaction=train_data._dataset.inter_feat,
            item_seq_field=model.ITEM_SEQ,
            item_seq_len_field=model.ITEM_SEQ_LEN,
            item_field=model.ITEM_ID,
            epochs=self.config["epochs"],
        )
        loss = build_loss(context).to(self.device)
        model.kd = loss
        term = DistillationTerm(loss, context, self._label_tensors(rows))
        pairs = settings.kd_batch_size or self.config["train_batch_size"]
        labelled = self.row_loader(train_data, list(self.labels), max(1, pairs // self.settings.teacher.llm_top_n))
        if name not in self.outcomes:
            self.seed_stage(name, labelled)
        try:
            return fit(
                name,
                model,
                batches=term.batches(train_data, labelled),
                loss=partial(term, model),
                learning_rate=settings.kd_learning_rate,
                epoch_start=loss.epoch_start,
                after_step=loss.after_step,
                **ending,
            )
        finally:
            model.kd = None

    def _label_tensors(self, rows: TrainingRows) -> tuple[Tensor, Tensor, Tensor]:
        rankings: dict[int, Sequence[str]] = {row: label.ranking for row, label in self.labels.items()}
        return rows.lists(rankings, {row: label.candidates for row, label in self.labels.items()})

    def _train_longer(self, fit: Any, train_data: Any) -> StageOutcome:
        """The control: the plain student trained on for as many steps as distillation took, with as many evaluations."""
        distilled = self.outcomes["distilled"]
        self.alkdrec.load_state_dict(self.outcomes["student"].state)
        steps = max(1, distilled.steps // max(1, distilled.epochs))
        return fit(
            "student_longer", self.alkdrec, batches=CycledBatches(train_data, steps), epochs=distilled.epochs,
            stopping_step=distilled.epochs, learning_rate=self.settings.distill.kd_learning_rate,
        )  # fmt: skip

    # -- evaluation ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, eval_data: Any, load_best_model: bool = True, model_file: Any = None, show_progress: bool = False) -> Any:
        """As RecBole's ``Trainer.evaluate``. After ``fit``, test data gives the whole report (``TestResult.report``)."""
        whole_report = self.folder is not None and self._stage is None and eval_data is not self._valid_data and not model_file
        if not (whole_report and eval_data and self.outcomes):
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)
        stages: dict[str, dict[str, Any]] = {}
        tests = {}
        for name in STAGES:
            outcome, model = self.outcomes[name], self.models[name]
            model.load_state_dict(outcome.state)
            self.model = model
            tests[name] = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
            stages[name] = {
                "valid": outcome.valid or {},
                "test": {key: float(value) for key, value in tests[name].items()},
                "parameters": sum(p.numel() for p in model.parameters()),
                **{key: getattr(outcome, key) for key in ("best_epoch", "best_step", "steps", "epochs", "seconds", "peak_mb")},
            }
        self.model = self.alkdrec
        self.alkdrec.load_state_dict(self.outcomes["distilled"].state)
        result = TestResult(tests["distilled"])
        result.report = self._report(stages)
        self._announce(result.report)
        return result

    def _report(self, stages: dict[str, Any]) -> dict[str, Any]:
        assert self.folder is not None
        first = self.selection[0][0]
        policy = {
            "value": first.value,
            "upper": first.upper,
            "gap": first.gap,
            "support": first.support,
            "picks": [session for _, names in self.selection for session in names],
        }
        known = list(self.labels.values())
        each = self._pool_size / max(1, len(known))
        prices = [label.usd for label in known if label.usd is not None]
        labels = {
            **{
                key: getattr(self.bill, key)
                for key in ("asked", "reused", "failed", "repaired", "prompt_tokens", "completion_tokens")
            },
            "usd": self.bill.usd,
            "seconds": round(self.bill.seconds, 3),
            "all_sessions": {
                "sessions": self._pool_size,
                "tokens": round(each * sum(label.prompt_tokens + label.completion_tokens for label in known)),
                "seconds": round(each * sum(label.seconds for label in known), 1),
                "usd": round(each * sum(prices), 4) if prices else None,
            },
        }
        return {
            "stages": stages,
            "labels": labels,
            "lora": self._lora,
            "policy": policy,
            "run_folder": os.fspath(self.folder.path),
            "peak_mb": peak_memory_mb(),
            "settings": self.settings.flat() | {key: copy.copy(self.config[key]) for key in ("model", "dataset", "seed")},
        }

    def _announce(self, report: dict[str, Any]) -> None:
        assert self.folder is not None
        parts = [part for part in ("valid", "test") if report["stages"]["distilled"][part]]
        tables = "\n\n".join(stage_table(report["stages"], part) for part in parts)
        lines = bill_lines(report["labels"], report["lora"], report["policy"], self.settings.selection.alkd_policy)
        self.logger.info("result\n\n" + tables + "\n\n" + "\n".join(lines))
        file = self.folder.write_json(RESULT, report)
        self.logger.info(set_color("result file", "blue") + f": {file}")
