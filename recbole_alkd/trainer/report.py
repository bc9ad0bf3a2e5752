"""The end of a run: every stage on valid and test, baselines that need no training, tables and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import perf_counter, time
from typing import Any

import numpy as np
from recbole.utils import set_color
from torch import Tensor

from recbole_alkd.files import write_json
from recbole_alkd.learner.outcome import peak_memory_mb, state_bytes
from recbole_alkd.learner.table_rows import table_rows
from recbole_alkd.model.baselines import KINDS, Baseline
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
from recbole_alkd.trainer.again import run_facts
from recbole_alkd.trainer.comparison import RowComparison, compare_rows, comparison_metric, table_line
from recbole_alkd.trainer.endings import FinishedRun, finish
from recbole_alkd.trainer.report_words import (
    STAGES,
    TestResult,
    bill_lines,
    row_words,
    stage_table,
    times_table,
    tuned_line,
)
from recbole_alkd.trainer.run import Run
from recbole_alkd.trainer.run_folder import RESULT


def stage_ranks(
    run: Run, stage: str, test_data: Any, state: Mapping[str, Tensor] | None = None
) -> dict[str, np.ndarray]:
    """Ranks of the targets of ``valid`` and ``test`` (``session_ranks``) under a stage that was trained.

    Args:
        state: what the model is given in place of the stage's own state.
    """
    model = run.model_of(stage)
    model.load_state_dict(run.outcomes[stage].state if state is None else state)
    parts = {"valid": run.valid_data, "test": test_data}
    return {part: session_ranks(model, data, run.device) for part, data in parts.items() if data}


class Report:
    """All that a run shows of its stages.

    Args:
        run: whose stages are trained. test_data: RecBole's loader of the test part.
    """

    def __init__(self, run: Run, test_data: Any, show_progress: bool = False) -> None:
        self._run, self._test_data, self._show_progress = run, test_data, show_progress
        parts = (("valid", run.valid_data), ("test", test_data))
        self._parts = {part: data for part, data in parts if data}
        self._arrays: dict[
            str, np.ndarray
        ] = {}  # sessions, groups of targets, and the ranks of each row of the table
        for part, data in self._parts.items():
            self._arrays[f"sessions_{part}"] = session_tokens(data)
            targets = data._dataset.inter_feat[data._dataset.iid_field].numpy()
            self._arrays[f"groups_{part}"] = target_groups(run.train_part, targets)

    def make(self) -> TestResult:
        """Evaluate, print the tables and what they show, write the same as data; the student is the distilled
        one then.
        """
        run = self._run
        stages = {name: self._stage(name) for name in STAGES}
        metrics = list(stages["student"]["test"])
        baselines = {kind: self._baseline(kind, metrics) for kind in KINDS}
        valid_part = run.valid_data._dataset if run.valid_data else None
        for row in table_rows(run.config, run.train_part, valid_part, run.text, run.trainer.logger):
            ranks = {part: session_ranks(row.model, data, run.device) for part, data in self._parts.items()}
            baselines[row.name] = self._by_ranks(row.name, ranks, metrics) | row.facts()
        comparisons, reading = self._compared([*stages, *baselines], metrics)
        write_arrays(run.folder.path / RANKS, self._arrays)
        run.trainer.take(run.model)
        run.model.load_state_dict(run.outcomes["distilled"].state)
        result = TestResult(stages["distilled"]["test"])
        result.report = self._facts(stages, baselines, comparisons)
        names = row_words(baselines)
        self._announce(result.report, [one.words(names) for one in comparisons] + reading)
        return result

    def _facts(
        self, stages: dict[str, Any], baselines: dict[str, Any], comparisons: list[RowComparison]
    ) -> dict[str, Any]:
        """What ``result.json`` holds."""
        run = self._run
        student = run.learners["student"]
        return {
            "stages": stages,
            "baselines": baselines,
            "comparison": comparisons[0].facts() if comparisons else None,
            "comparisons": [vars(one) | {"verdict": one.verdict} for one in comparisons],
            "targets": {name: int((self._arrays["groups_test"] == k).sum()) for k, name in enumerate(GROUPS)},
            "labels": run.labels.rounds.label_report(),
            "lora": run.labels.lora_report,
            "tuned": run.tuned,
            "item_text": student.title_facts(run.text) if run.text else None,
            "policy": run.labels.rounds.policy_report(),
            "run_folder": os.fspath(run.folder.path),
            **run_facts(run.config, run.roles, run.began, getattr(run.trainer.loggers[0], "log_dir", None)),
            "peak_mb": peak_memory_mb(),
            "settings": run.settings.flat() | {key: run.config[key] for key in ("model", "dataset", "seed")},
        }

    def _stage(self, name: str) -> dict[str, Any]:
        """A stage of the run: metrics of all targets and by group, its size, and what it took; its ranks are
        kept.
        """
        run, outcome = self._run, self._run.outcomes[name]
        ranks = stage_ranks(run, name, self._test_data)
        self._arrays |= {f"{name}_{part}": values for part, values in ranks.items()}
        model = run.model_of(name)
        run.trainer.take(model)
        test = run.trainer.validate(self._test_data, self._show_progress)
        return {
            "valid": outcome.valid or {},
            "test": test,
            "test_groups": by_group(ranks["test"], self._arrays["groups_test"], test),
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": state_bytes(outcome.state),
            **outcome.facts(),
        }

    def _baseline(self, kind: str, metrics: list[str]) -> dict[str, Any]:
        """What a recommender that needs no training reaches, by the ranks: many items of equal popularity
        share a rank.
        """
        begin, run = perf_counter(), self._run
        valid = self._parts["valid"]._dataset if "valid" in self._parts else None
        baseline = Baseline(kind, run.train_part, valid, run.settings.session.mask_session_items)
        ranks = {part: baseline.ranks(data._dataset) for part, data in self._parts.items()}
        measured = self._by_ranks(kind, ranks, metrics)
        return {**measured, "parameters": baseline.parameters, "seconds": round(perf_counter() - begin, 3)}

    def _by_ranks(self, name: str, ranks: Mapping[str, np.ndarray], metrics: list[str]) -> dict[str, Any]:
        """Metrics of a row beside the stages, from its ranks by part, which are kept."""
        known = [metric for metric in metrics if metric.partition("@")[0] in METRICS]
        digits, means = self._run.config["metric_decimal_place"], {}
        for part, values in ranks.items():
            self._arrays[f"{name}_{part}"] = values
            means[part] = {metric: round(float(gains(values, metric).mean()), digits) for metric in known}
        groups = by_group(ranks["test"], self._arrays["groups_test"], metrics)
        return {"valid": means.get("valid", {}), "test": means["test"], "test_groups": groups}

    def _compared(self, rows: list[str], metrics: list[str]) -> tuple[list[RowComparison], list[str]]:
        """The distilled student against its controls, and a line on the table as a whole; nothing without a
        metric of ranks.
        """
        metric = comparison_metric(metrics, self._run.trainer.valid_metric)
        if metric is None:
            return [], []
        ranks, seed = {name: self._arrays[f"{name}_test"] for name in rows}, self._run.config["seed"]
        controls = ("student_longer", "student")
        comparisons = [compare_rows(ranks, "distilled", against, metric, seed) for against in controls]
        return comparisons, [
            table_line(ranks, metric, seed, row_words(name for name in rows if name not in STAGES))
        ]

    def _announce(self, report: dict[str, Any], comparisons: list[str]) -> None:
        """Print the tables, what they show and the bill, and write the same as data."""
        run = self._run
        logger, policy = run.trainer.logger, run.settings.selection.alkd_policy
        parts = [part for part in ("valid", "test") if report["stages"]["distilled"][part]]
        tables = "\n\n".join(stage_table(report["stages"] | report["baselines"], part) for part in parts)
        took = time() - run.began
        tables += "\n\n" + times_table(report["stages"], report["labels"], report["lora"], took)
        lines = [f"tuned {tuned_line(name, tried)}" for name, tried in run.tuned.items()]
        lines += bill_lines(report["labels"], report["lora"], report["policy"], policy, report["item_text"])
        logger.info("result\n\n" + tables + "\n\n" + "\n".join([*comparisons, "", *lines]))
        states = {name: (run.model_of(name), run.outcomes[name].state) for name in STAGES}
        ended = (
            run.model,
            run.train_part,
            run.folder.path,
            report,
            run.settings,
            states,
            run.labels.rounds.labels,
            run.labels.rounds.rows.part,
            run.labels.rounds.rows.sessions,
            run.labels.rounds.hints,
        )
        last = finish(FinishedRun(*ended), logger)
        file = write_json(run.folder.path / RESULT, report)
        run.folder.close()
        log = report["log"]
        logger.info(set_color("result file", "blue") + f": {file}" + (f"; log: {log}" if log else ""))
        for words in last:
            logger.info(words)
