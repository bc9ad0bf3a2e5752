"""The end of a run: every stage on valid and test, the recommenders that need no training beside them, tables and files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
import torch
from recbole.utils import set_color
from torch import nn

from recbole_alkd.labelling.rounds import LabelRounds
from recbole_alkd.model.scoring import (
    GROUPS,
    METRICS,
    RANKS,
    by_group,
    gains,
    session_ranks,
    session_tokens,
    target_groups,
    write_arrays,
)
from recbole_alkd.model.simple import KINDS, SimpleRecommender
from recbole_alkd.settings.groups import Settings
from recbole_alkd.trainer.again import run_facts
from recbole_alkd.trainer.comparison import RowComparison, compare_rows, comparison_metric, table_line
from recbole_alkd.trainer.endings import FinishedRun, finish
from recbole_alkd.trainer.report import STAGES, TestResult, bill_lines, row_words, stage_table, tuned_line
from recbole_alkd.trainer.run_folder import RESULT, RunFolder
from recbole_alkd.trainer.stage import StageOutcome, StageTrainer, peak_memory_mb, state_bytes
from recbole_alkd.trainer.table_rows import table_rows


class ReportingTrainer(StageTrainer):
    """A trainer whose ``evaluate`` on the test data evaluates all that ``fit`` left: ``outcomes`` and ``models`` by stage.

    Attributes:
        train_part: the training part of the data. lora_report: what LoRA took, or None.
        tuned: stage -> what ``student_tune`` tried for it and what won (``trainer/tuning.py``).
    """

    folder: RunFolder
    rounds: LabelRounds
    settings: Settings
    alkdrec: Any

    def __init__(self, config: Any, model: nn.Module) -> None:
        super().__init__(config, model)
        self.outcomes: dict[str, StageOutcome] = {}
        self.models: dict[str, nn.Module] = {}
        self.train_part: Any = None
        self.lora_report: dict[str, Any] | None = None
        self.tuned: dict[str, dict[str, Any]] = {}
        self._valid_data: Any = None
        self.runs: dict[str, Any] = {}
        self.began = time.time()

    @torch.no_grad()
    def evaluate(self, eval_data: Any, load_best_model: bool = True, model_file: Any = None, show_progress: bool = False) -> Any:
        """As RecBole's ``Trainer.evaluate``. After ``fit``, test data gives the whole report (``TestResult.report``)."""
        whole_report = "distilled" in self.outcomes and self._stage is None and eval_data is not self._valid_data and not model_file
        if not (whole_report and eval_data):
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)
        show_progress = show_progress and not (self._short and len(eval_data) < 50)
        parts = {part: data for part, data in (("valid", self._valid_data), ("test", eval_data)) if data}
        arrays: dict[str, np.ndarray] = {}
        for part, data in parts.items():
            arrays[f"sessions_{part}"] = session_tokens(data)
            targets = data._dataset.inter_feat[data._dataset.iid_field].numpy()
            arrays[f"groups_{part}"] = target_groups(self.train_part, targets)
        stages: dict[str, dict[str, Any]] = {}
        for name in STAGES:
            outcome, self.model = self.outcomes[name], self.models[name]
            self.model.load_state_dict(outcome.state)
            stages[name] = {
                "valid": outcome.valid or {},
                **self._tested(name, eval_data, arrays, show_progress),
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "bytes": state_bytes(outcome.state),
                **outcome.facts(),
            }
        metrics = list(stages["student"]["test"])
        baselines = {kind: self._baseline(kind, parts, arrays, metrics) for kind in KINDS}
        valid_part = self._valid_data._dataset if self._valid_data else None
        for row in table_rows(self.config, self.train_part, valid_part, self.item_text, self.logger):
            ranks = {part: session_ranks(row.model, data, self.device) for part, data in parts.items()}
            baselines[row.name] = self._by_ranks(row.name, ranks, arrays, metrics) | row.facts()
        comparisons, reading = self._compared(arrays, [*stages, *baselines], metrics)
        write_arrays(self.folder.path / RANKS, arrays)
        self.model = self.alkdrec
        self.alkdrec.load_state_dict(self.outcomes["distilled"].state)
        result = TestResult(stages["distilled"]["test"])
        result.report = {
            "stages": stages,
            "baselines": baselines,
            "comparison": comparisons[0].facts() if comparisons else None,
            "comparisons": [vars(one) | {"verdict": one.verdict} for one in comparisons],
            "targets": {name: int((arrays["groups_test"] == k).sum()) for k, name in enumerate(GROUPS)},
            "labels": self.rounds.label_report(),
            "lora": self.lora_report,
            "tuned": self.tuned,
            "item_text": self.item_text.bill(edges=not self.alkdrec.view.has_vectors) if self.item_text else None,
            "policy": self.rounds.policy_report(),
            "run_folder": os.fspath(self.folder.path),
            **run_facts(self.config, self.runs, self.began, getattr(self._loggers[0], "log_dir", None)),
            "peak_mb": peak_memory_mb(),
            "settings": self.settings.flat() | {key: self.config[key] for key in ("model", "dataset", "seed")},
        }
        names = row_words(baselines)
        self._announce(result.report, [one.words(names) for one in comparisons] + reading)
        return result

    def _compared(
        self, arrays: Mapping[str, np.ndarray], rows: list[str], metrics: list[str]
    ) -> tuple[list[RowComparison], list[str]]:
        """The distilled student against its controls, and a line on the table as a whole; nothing without a metric of ranks."""
        metric = comparison_metric(metrics, self.valid_metric)
        if metric is None:
            return [], []
        ranks, seed = {name: arrays[f"{name}_test"] for name in rows}, self.config["seed"]
        found = [compare_rows(ranks, "distilled", against, metric, seed) for against in ("student_longer", "student")]
        return found, [table_line(ranks, metric, seed, row_words(name for name in rows if name not in STAGES))]

    def _tested(self, name: str, test_data: Any, arrays: dict[str, np.ndarray], show_progress: bool) -> dict[str, Any]:
        """Test metrics of the model, of all targets and by group; its ranks go into ``arrays``."""
        arrays |= {f"{name}_{part}": found for part, found in self._ranks(test_data).items()}
        test = super().evaluate(test_data, load_best_model=False, show_progress=show_progress)
        groups = by_group(arrays[f"{name}_test"], arrays["groups_test"], test)
        return {"test": {key: float(value) for key, value in test.items()}, "test_groups": groups}

    def _baseline(self, kind: str, parts: Mapping[str, Any], arrays: dict[str, np.ndarray], metrics: list[str]) -> dict[str, Any]:
        """What a recommender that needs no training reaches, by the ranks: many items of equal popularity share a rank."""
        begin = perf_counter()
        valid = parts["valid"]._dataset if "valid" in parts else None
        simple = SimpleRecommender(kind, self.train_part, valid, self.settings.session.mask_session_items)
        ranks = {part: simple.ranks(data._dataset) for part, data in parts.items()}
        found = self._by_ranks(kind, ranks, arrays, metrics)
        return {**found, "parameters": simple.parameters, "seconds": round(perf_counter() - begin, 3)}

    def _by_ranks(
        self, name: str, ranks: Mapping[str, np.ndarray], arrays: dict[str, np.ndarray], metrics: list[str]
    ) -> dict[str, Any]:
        """Metrics of a row beside the stages, from its ranks by part, which go into ``arrays``."""
        known = [metric for metric in metrics if metric.partition("@")[0] in METRICS]
        digits, found = self.config["metric_decimal_place"], {}
        for part, values in ranks.items():
            arrays[f"{name}_{part}"] = values
            found[part] = {metric: round(float(gains(values, metric).mean()), digits) for metric in known}
        groups = by_group(ranks["test"], arrays["groups_test"], metrics)
        return {"valid": found.get("valid", {}), "test": found["test"], "test_groups": groups}

    def stage_ranks(self, stage: str, test_data: Any) -> dict[str, np.ndarray]:
        """Ranks of the targets of ``valid`` and ``test`` (``session_ranks``) under a stage that ``train_until`` trained."""
        self.model = self.models[stage]
        self.model.load_state_dict(self.outcomes[stage].state)
        return self._ranks(test_data)

    def _ranks(self, test_data: Any) -> dict[str, np.ndarray]:
        parts = {"valid": self._valid_data, "test": test_data}
        return {part: session_ranks(self.model, data, self.device) for part, data in parts.items() if data}

    def _announce(self, report: dict[str, Any], comparisons: list[str]) -> None:
        """Print the tables, what they show and the bill, and write the same as data."""
        parts = [part for part in ("valid", "test") if report["stages"]["distilled"][part]]
        tables = "\n\n".join(stage_table(report["stages"] | report["baselines"], part) for part in parts)
        policy = self.settings.selection.alkd_policy
        lines = [f"tuned {tuned_line(name, found)}" for name, found in self.tuned.items()]
        lines += bill_lines(report["labels"], report["lora"], report["policy"], policy, report["item_text"])
        self.logger.info("result\n\n" + tables + "\n\n" + "\n".join([*comparisons, "", *lines]))
        states = {name: (self.models[name], self.outcomes[name].state) for name in STAGES}
        ended = (self.alkdrec, self.train_part, self.folder.path, report, self.settings, states, self.rounds.labels)
        finish(FinishedRun(*ended), self.logger)
        file = self.folder.write_json(RESULT, report)
        self.folder.close()
        self.logger.info(set_color("result file", "blue") + f": {file}")
