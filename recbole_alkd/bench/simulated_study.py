"""What a study of simulated answers about items is made of: halves of the training sessions, questions,
candidates, tables and the LLM's own answers (``simulated_items.py`` runs it).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from recbole_alkd.bench.simulated_answers import PLACES, halves, true_neighbours
from recbole_alkd.bench.simulated_rows import METRIC
from recbole_alkd.labelling.item_neighbours import ItemNeighbours
from recbole_alkd.labelling.item_rows import ItemRows
from recbole_alkd.labelling.training_rows import TrainingRows
from recbole_alkd.learner.counting import count_model
from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.model.backbone import SessionRecommender
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.model.edges import EdgeMaker
from recbole_alkd.model.neighbours import table_bytes
from recbole_alkd.model.scoring import gains, in_batches, session_ranks
from recbole_alkd.settings.groups import TextSettings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.teacher.base import ItemInstance, TeacherContext

CANDIDATES, QUESTIONS, NEIGHBOURS = 20, 500, 10
CHOICES = ("random", "most clicked", "hardest", "all")  # of the items that are asked about
logger = logging.getLogger(__name__)


class Study:
    """One data set and seed: the half that the table sees, the half that a teacher knows, and the items
    that can be asked about.

    Args:
        data_path: the folder with the data set's; None: RecBole's own. settings: laid over the study's.

    Attributes:
        half, hidden, whole: data sets of the first half, of the second, and of all training sessions.
        bytes: of a table of ``NEIGHBOURS`` an item, in which every table is kept.
        rows: the items. truth: row -> the true neighbours of its item, as internal ids, best first.
    """

    def __init__(self, dataset: str, data_path: str | None, seed: int, settings: dict[str, Any]) -> None:
        from recbole.data import create_dataset, data_preparation

        own = {
            "mask_session_items": True, "MAX_ITEM_LIST_LENGTH": 10, "student_model": "SessionKNN",
            "teacher_model": "SessionKNN", "alkd_unit": "item", "lora": False, "llm_candidates": CANDIDATES,
            "llm_top_n": PLACES, "show_progress": False, "state": "WARNING",
        }  # fmt: skip
        own |= {"data_path": data_path} if data_path else {}
        self._dataset, self._settings = dataset, {**own, **settings}
        config = self._make_config()
        self.config, self.seed = config, seed
        train, self.valid, self.test = data_preparation(config, create_dataset(config))
        self.whole = train._dataset
        self.n_items = self.whole.item_num
        self.bytes = table_bytes(self.n_items, NEIGHBOURS * (self.n_items - 1))
        rng = np.random.default_rng(stage_seed(seed, "halves"))
        session = self.whole.inter_feat[self.whole.uid_field].numpy()
        known = np.unique(session)
        second = np.isin(session, known[halves(known, rng)])
        self.half, self.hidden = (self._rows(np.flatnonzero(kept)) for kept in (~second, second))
        self.text = settings_of(config).text
        encoder = self.text.item_text or "tfidf"
        vectors = ItemText(
            TextSettings(item_text=encoder, item_text_layer=self.text.item_text_layer), self.whole
        ).vectors
        training = TrainingRows(SimpleNamespace(_dataset=self.half), settings_of(config))
        self.rows = ItemRows(training, ItemNeighbours(self.half, vectors, 100))
        truth = true_neighbours(*training_sessions(self.hidden), self.n_items)
        self.truth = {row: truth[item] for row, item in enumerate(self.rows.items.tolist()) if item in truth}

    def _make_config(self, **more: Any) -> Any:
        """RecBole's Config of the study, with ``more`` laid over it."""
        from recbole.config import Config

        from recbole_alkd.plugin import empty_argv

        with empty_argv():
            return Config(model="ALKDRec", dataset=self._dataset, config_dict={**self._settings, **more})

    def _rows(self, rows: np.ndarray) -> Any:
        part = self.whole.copy(self.whole.inter_feat[torch.as_tensor(rows)])
        part.row_is_last = np.asarray(self.whole.row_is_last)[rows]
        return part

    def questions(self) -> dict[str, np.ndarray]:
        """Name (one of ``CHOICES``) -> rows that are asked about, ``QUESTIONS`` at most but for "all"."""
        rows, rng = np.array(sorted(self.truth)), np.random.default_rng(stage_seed(self.seed, "questions"))
        times, hard = self.rows.neighbours.times[self.rows.items[rows]], self.rows.hardness[rows]
        return {
            "random": np.sort(rng.permutation(rows)[:QUESTIONS]),
            "most clicked": rows[np.argsort(-times, kind="stable")[:QUESTIONS]],
            "hardest": rows[np.argsort(-hard, kind="stable")[:QUESTIONS]],
            "all": rows,
        }

    def table(
        self, part: Any, answers: Callable[[float], EdgeMaker] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """(test sessions,) gains of the table of a part with answers as edges, and what validation chose.

        Args:
            answers: what makes the edges, from what they count the other way round (``knn_list_backward``).
        """
        config = self._make_config(student_bytes=self.bytes)
        model = SessionRecommender(config, part, settings_of(config), "student").to(config["device"])
        text = ItemText(self.text, self.whole) if self.text.item_text else None
        backward = model.recommender.list_backward
        edges = {"items": [answers(back) for back in backward]} if answers else None
        facts = dict(count_model(model.recommender, part, self.valid._dataset, logger, edges, text))
        if answers:
            facts["items_backward"] = backward[facts.get("items_variant", 0)]
        model.eval()
        return gains(session_ranks(model, self.test, config["device"]), METRIC), facts

    def candidates(self, rows: np.ndarray) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Row -> its candidates: the true neighbours, filled up to ``CANDIDATES`` with those that a run would
        show; and row -> the best ``PLACES`` of these by the whole table of the half, which is what counting
        answers. All as internal ids."""
        config = self._make_config(student_bytes=None, student_neighbors=None, item_text=None)
        model = SessionRecommender(config, self.half, settings_of(config), "teacher").to(config["device"])
        count_model(model.recommender, self.half, self.valid._dataset, logger)
        view, device = model.eval().view, config["device"]
        ids, found = self.half.field2token_id[self.half.iid_field], {}
        for one in self.rows.instances(rows, view, device):
            usual = [int(ids[token]) for token in one.candidates]
            found[one.row] = list(dict.fromkeys([*self.truth[one.row], *usual]))[:CANDIDATES]
        listed = torch.tensor(list(found.values()), device=device)
        index = torch.as_tensor(np.fromiter(found, int))

        def best(seq: torch.Tensor, length: torch.Tensor, batch: slice) -> torch.Tensor:
            own = listed[batch]
            order = view.scores(seq, length).gather(1, own).argsort(dim=1, descending=True, stable=True)
            return own.gather(1, order[:, :PLACES])

        seq, length = self.rows.item_seq[index].to(device), self.rows.item_seq_len[index].to(device)
        counted = in_batches(view, seq, length, best).tolist()
        return found, dict(zip(found, counted, strict=True))

    def ask(
        self, rows: np.ndarray, candidates: dict[int, list[int]], cache: Path
    ) -> tuple[list[list[int]], int, float]:
        """The LLM's lists, the tokens that it read, and the seconds that it took."""
        from recbole_alkd.data.titles import titles_of
        from recbole_alkd.teacher.local.teacher import LocalTeacher

        tokens = self.rows.tokens
        titles = titles_of(self.config, self.half.iid_field, tokens[1:].tolist())
        settings = settings_of(self.config)
        where = (self.config["dataset"], Path(self.config["data_path"]), titles, cache)
        teacher = LocalTeacher(TeacherContext(settings, *where, device=str(self.config["device"])))
        names = [str(self.rows.sessions[row]) for row in rows]
        asked = [
            ItemInstance(int(row), name, (name,), tuple(tokens[candidates[int(row)]].tolist()))
            for row, name in zip(rows, names, strict=True)
        ]
        began, ids = time.perf_counter(), self.half.field2token_id[self.half.iid_field]
        answers = {instance.row: answer for instance, answer in teacher.ask(asked)}
        seconds = time.perf_counter() - began
        teacher.close()
        lists = [[int(ids[token]) for token in answers[int(row)].ranking] for row in rows]
        return lists, sum(one.prompt_tokens for one in answers.values()), seconds
