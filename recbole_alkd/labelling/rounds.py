"""Rounds of selecting instances and asking the LLM teacher about them, and what is learnt of the ratio on the
way."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import set_color

from recbole_alkd.active.certificate import certificate
from recbole_alkd.active.policy.base import Pool, Selection
from recbole_alkd.active.ratio import CountBounds, RatioEstimate, count_kinds, estimate_ratio
from recbole_alkd.labelling.bill import Bill
from recbole_alkd.labelling.collect import Labelling, collect_labels
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.labelling.supplies import Supplies
from recbole_alkd.labelling.training_rows import Rows
from recbole_alkd.labels import Budget, Label, LabelStore
from recbole_alkd.labels.cost import Cost, total
from recbole_alkd.labels.hints import get_hints
from recbole_alkd.labels.ledger import Ledger
from recbole_alkd.labels.side import take_in
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.registry import policies
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.teacher.base import Instance, LLMTeacher, LoraExample
from recbole_alkd.teacher.replay import read_recordings

logger = logging.getLogger()  # RecBole's, which is the root
CERTIFICATE = ("value", "upper", "gap", "support")


class LabelRounds:
    """The labels of one run, round by round.

    Args:
        rows: what may be labelled (training rows, or items); their settings are the run's.
        recommender, student: views of the trained teacher recommender and of the student.
        llm: who is asked.
        folds: recommenders that did not see a session, for the pilot.
        seed: of the run. ledger_file: where the run notes what it spends, in all its starts.

    Attributes:
        labels: row -> usable label. bill: what all of them took. pool_size: instances that may be labelled.
    """

    def __init__(
        self, rows: Rows, recommender: Backbone, student: Backbone, llm: LLMTeacher, folds: Folds, seed: int,
        device: torch.device, show_progress: bool, ledger_file: Path,
    ) -> None:  # fmt: skip
        self.rows, self.recommender, self.student, self.llm, self.folds = (
            rows,
            recommender,
            student,
            llm,
            folds,
        )
        self.seed, self.device, self.show_progress = seed, device, show_progress
        self._ledger_file = ledger_file
        self.settings = rows.settings
        self.pool_rows = rows.pool_rows(llm.can_label)
        self.labels: dict[int, Label] = {}
        self.bill = Bill()
        self._asked: list[int] = []
        self._ended: str | None = None  # why the budget ended the asking
        self._missing: list[str] = []  # selected sessions that got no answer
        self._selections: list[tuple[str, Selection, list[str]]] = []
        self._pool: Pool | None = None
        self._ratio: RatioEstimate | None = None
        self._bounds: CountBounds | None = None

    @cached_property
    def supplies(self) -> Supplies:
        """What the LLM teacher's preparation may need of this run."""
        made, teacher, lora = self.rows.examples(self.folds), self.settings.teacher, self.settings.lora
        examples: Callable[[], list[LoraExample]] = made.drawn
        if lora.lora and lora.lora_target == "replay" and teacher.llm_teacher == "local":
            config = self.rows.dataset.config
            recorded = read_recordings(teacher, Path(config["data_path"]), config["dataset"])
            examples = partial(made.imitating, recorded.rankings)
        return Supplies(partial(self.rows.hint_cases, self.recommender, self.device), examples, made.held_out)

    def collect(
        self, instances: Sequence[Instance], store: LabelStore, retry_failed: bool = False
    ) -> Labelling:
        """The labels of ``instances``, from ``store`` or the LLM teacher, inside of what is left of the
        budget."""
        return collect_labels(
            self.llm,
            instances,
            store,
            self.budget(len(instances)),
            show_progress=self.show_progress,
            retry_failed=retry_failed,
            supplies=self.supplies,
        )

    @property
    def pool_size(self) -> int:
        return len(self.pool_rows)

    def hints(self) -> tuple[str, ...]:
        """The rules that stand in the prompts of the labels; none without hints, or where the label store has
        gone."""
        path = Path(self.settings.teacher.label_store).expanduser()
        if self.llm.hint_key == "none" or not path.is_file():
            return ()
        with LabelStore(path) as store:
            kept = get_hints(store, self.llm.hint_key)
        return kept.rules if kept else ()

    def rankings(self) -> Mapping[int, Sequence[str]]:
        """Row -> ranking, in the order in which the labels came in."""
        return {row: label.ranking for row, label in self.labels.items()}

    def candidates(self) -> Mapping[int, Sequence[str]]:
        """Row -> candidates of its label."""
        return {row: label.candidates for row, label in self.labels.items()}

    def run(self, number: int) -> None:
        """Round ``number`` (from 1): select its share of the budget, ask, and learn from the answers."""
        selection = self.settings.selection
        if number == 1 and selection.alkd_ratio == "pilot":
            self._pilot()
        if self._ended:
            logger.warning(f"round {number}: nothing is asked, {self._ended}")
            return
        size = -(-(selection.budget_labels - len(self._asked)) // (selection.alkd_rounds - number + 1))
        asked = self._ask(self._select(f"round {number}", selection.alkd_policy, size))
        if self._bounds:
            self._bounds = self._bounds.after(self._kinds(asked))
            logger.info(
                set_color("ratio", "blue") + f": the rest of the pool has {self._bounds.counts} at worst"
            )

    def select_all(self) -> np.ndarray:
        """Select the whole budget in one round and ask nobody; the row ids."""
        selection = self.settings.selection
        return self._select("round 1", selection.alkd_policy, selection.budget_labels)

    def instances(self, picked: np.ndarray) -> list[Instance]:
        """What the LLM teacher is asked about the rows ``picked``."""
        return self.rows.instances(picked, self.recommender, self.device)

    def budget(self, size: int) -> Budget:
        """What may still be spent on ``size`` instances, after the rounds before and earlier starts of this
        run."""
        limits = self.settings.selection
        return Budget(size, limits.budget_tokens, limits.budget_usd, self.ledger)

    @cached_property
    def ledger(self) -> Ledger:
        """What this run has spent, in all its starts."""
        ledger = Ledger(self._ledger_file, self._taken)
        spent = ledger.spending
        if spent.earlier_tokens or spent.earlier_usd:
            lost = (
                f", {spent.unknown_tokens:,} of them the most that {spent.unknown} requests without an end "
                "may have taken"
            )
            logger.info(
                set_color("budget", "blue")
                + f": earlier starts of this run took {spent.earlier_tokens:,} tokens, "
                f"{spent.earlier_usd:.4f} USD{lost if spent.unknown else ''}; {ledger.path}"
            )
        if ledger.unreadable:
            logger.warning(
                f"{ledger.path}: {ledger.unreadable} lines cannot be read; what they say is not counted"
            )
        return ledger

    def _taken(self, keys: list[str]) -> dict[str, Cost]:
        """What the stored ones among ``keys`` took."""
        path = Path(self.settings.teacher.label_store).expanduser()
        if not path.is_file():
            return {}
        with LabelStore(path) as store:
            take_in(store)
            labels = store.get_many(keys)
        return {key: label.cost for key, label in labels.items()}

    @property
    def last_selection(self) -> tuple[Pool, Selection]:
        """The pool that was selected from last, and what was selected."""
        assert self._pool is not None
        return self._pool, self._selections[-1][1]

    def _pilot(self) -> None:
        """Label a uniform sample of the pool and bound the counts of effective and incorrect
        labels with it."""
        selection = self.settings.selection
        seen = self._kinds(self._ask(self._select("pilot", "random", selection.alkd_pilot)))
        self._ratio = estimate_ratio(seen, self.pool_size, selection.alkd_confidence)
        self._bounds = self._ratio.bounds.after(seen)
        logger.info(set_color("ratio", "blue") + f": {self._ratio}")

    def _select(self, name: str, policy: str, size: int) -> np.ndarray:
        """Row ids that ``policy`` picks from the instances nobody was asked about yet."""
        left = np.setdiff1d(self.pool_rows, self._asked, assume_unique=True)
        self.student.model.eval()
        counts = self._bounds.counts if self._bounds else None
        self._pool = pool = self.rows.pool(left, self.recommender, self.student, self.device, counts)
        rng = np.random.default_rng(stage_seed(self.seed, "select", name))
        settings = self.settings.selection
        if self._bounds:
            # nobody can foresee the support under a pilot's bounds, and the pilot is paid for:
            # fill rather than stop
            settings = dataclasses.replace(settings, alkd_fill="next")
        chosen = policies.get(policy)(settings).select(pool, size, rng)
        self._selections.append((name, chosen, [str(session) for session in pool.sessions[chosen.picks]]))
        words = [f"{name}: {len(chosen.picks)} of {len(pool)} instances by {policy}"]
        if chosen.value is not None:
            words.append(certificate(vars(chosen)))
        if chosen.filled:
            words.append(f"{chosen.filled} from outside of the support")
        logger.info(set_color("selection", "blue") + " " + ", ".join(words))
        return left[chosen.picks]

    def _ask(self, picked: np.ndarray) -> np.ndarray:
        """Labels for the rows ``picked``, from the store or the LLM teacher;
        gives back the rows that have an answer."""
        instances, path = self.instances(picked), self.settings.teacher.label_store
        with LabelStore(path) as store:
            collected = self.collect(instances, store)
        self.labels.update(collected.labels)
        self.bill = self.bill + collected.bill
        self._ended = collected.ended
        self._missing.extend(str(session) for session in self.rows.sessions[list(collected.missing)])
        asked = np.setdiff1d(picked, collected.missing, assume_unique=True)
        self._asked.extend(asked.tolist())
        if not self.labels:
            ended = f" ({collected.ended})" if collected.ended else ""
            raise AlkdError(
                f"llm_teacher {self.settings.teacher.llm_teacher!r} gave no usable label for "
                f"{len(instances)} instances, "
                f"{collected.bill.failed} failed{ended}: nothing to distil; the label store is {path}"
            )
        return asked

    def _kinds(self, asked: np.ndarray) -> tuple[int, int, int]:
        return count_kinds(self.rows.kinds(asked.tolist(), self.rankings(), self.folds))

    def policy_report(self) -> dict[str, Any]:
        """Certificate of the first round (which faces the whole pool), the picks of all,
        and what became of the ratio."""
        rounds = [(name, selection) for name, selection, _ in self._selections if name != "pilot"]
        return {
            **{key: getattr(rounds[0][1], key) for key in CERTIFICATE},
            "picks": [session for _, _, sessions in self._selections for session in sessions],
            "rounds": [
                {
                    "name": name,
                    "picks": len(chosen.picks),
                    "filled": chosen.filled,
                    **{key: getattr(chosen, key) for key in CERTIFICATE},
                }
                for name, chosen, _ in self._selections
            ],
            "ratio": None
            if self._ratio is None
            else {**dataclasses.asdict(self._ratio), "counts": self._ratio.bounds.counts},
        }

    def label_report(self) -> dict[str, Any]:
        """The bill of this start; what all starts of the run spent; the limit that ended the asking and the
        selected sessions that are without an answer; and what labelling the whole pool would have cost at the
        same rates. ``unit`` and ``origin`` (of the LLM teacher) only where they are not session and LLM.
        """
        known = total(label.cost for label in self.labels.values())
        each = self.pool_size / max(1, len(self.labels))
        return {
            **self.bill.report(),
            **({} if self.rows.unit == "session" else {"unit": self.rows.unit}),
            **({"origin": self.llm.origin} if self.llm.origin else {}),
            "seconds": round(self.bill.cost.seconds, 3),
            "spent": dataclasses.asdict(self.ledger.spending),
            "ended": self._ended,
            "missing": self._missing,
            "all_sessions": {
                "sessions": self.pool_size,
                "tokens": round(each * known.tokens),
                "seconds": round(each * known.seconds, 1),
                "usd": None if known.usd is None else round(each * known.usd, 4),
            },
        }
