"""What must an answer about an item be worth? Simulated teachers of a known accuracy, and the LLM itself,
on the same questions.

The training sessions of a data set are divided at random. The table is counted on the first half; the
second half is what the simulated teacher knows, so the truth is of no validation or test session
(docs/research.md says it precisely).

    python -m recbole_alkd.bench.simulated_items --dataset NAME --data-path DATA --out FOLDER
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from recbole_alkd.bench.simulated_answers import (
    PLACES,
    answers_as_edges,
    halves,
    share_true,
    simulated_list,
    true_neighbours,
)
from recbole_alkd.bench.simulated_rows import METRIC, read_rows
from recbole_alkd.files import write_json, write_npz
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
from recbole_alkd.settings.text import read_yaml_file
from recbole_alkd.teacher.base import ItemInstance, TeacherContext

CANDIDATES, QUESTIONS, NEIGHBOURS = 20, 500, 10
CHOICES = ("random", "most clicked", "hardest", "all")  # of the items that are asked about
ACCURACIES = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)  # from chance (5 places of 20) to always right
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


def run(
    dataset: str,
    data_path: str | None,
    seed: int,
    out: Path,
    settings: dict[str, Any],
    llm: bool,
    choices: Sequence[str] = CHOICES,
    accuracies: Sequence[float] = ACCURACIES,
) -> None:
    """One data set and seed. ``out`` holds ``DATASET-SEED.json`` and ``.npz`` (gains of every test session),
    written as rows come; rows that are there are not made again."""
    study = Study(dataset, data_path, seed, settings)
    file = out / f"{dataset}-{seed}.json"
    rows, kept = read_rows(file)
    asked = {name: len(picked) for name, picked in study.questions().items()}

    def note(name: str, part: Any, answers: Callable[[float], EdgeMaker] | None = None, **more: Any) -> None:
        if name in kept:
            return
        gain, facts = study.table(part, answers)
        kept[name] = gain.astype(np.float32)
        chosen = {key: facts.get(f"items_{key}") for key in ("weight", "edges", "backward")}
        rows.append({"name": name, METRIC: float(gain.mean()), **chosen, **more})
        print(dataset, seed, rows[-1], flush=True)
        write_npz(file.with_suffix(".npz"), kept)
        content = {"dataset": dataset, "seed": seed, "bytes": study.bytes, "questions": asked, "rows": rows}
        write_json(file, content)

    out.mkdir(parents=True, exist_ok=True)
    note("half", study.half)
    note("all sessions", study.whole)
    candidates, counted = study.candidates(study.questions()["all"])
    for name in choices:
        picked = study.questions()[name]
        items, truth = study.rows.items[picked].tolist(), [study.truth[int(row)] for row in picked]

        def edges(lists: list[list[int]], items: list[int] = items) -> Callable[[float], EdgeMaker]:
            return partial(answers_as_edges, study.n_items, items, lists)

        lists = [counted[int(row)] for row in picked]
        note(f"{name}, counted order", study.half, edges(lists), true=share_true(lists, truth))
        if llm and name != "all" and f"{name}, LLM" not in kept:
            lists, tokens, seconds = study.ask(picked, candidates, out / "cache")
            more = {"true": share_true(lists, truth), "tokens": tokens, "seconds": round(seconds, 2)}
            note(f"{name}, LLM", study.half, edges(lists), **more)
        for accuracy in accuracies:
            rng = np.random.default_rng(stage_seed(seed, name, accuracy))
            pairs = zip(picked, truth, strict=True)
            lists = [simulated_list(right, candidates[int(row)], accuracy, rng) for row, right in pairs]
            more = {"accuracy": accuracy, "true": share_true(lists, truth)}
            note(f"{name}, {accuracy:g}", study.half, edges(lists), **more)


def ask_some(
    dataset: str, data_path: str | None, seed: int, out: Path, settings: dict[str, Any], count: int
) -> dict[str, Any]:
    """How often the LLM is right about ``count`` random items, and how often counting is; no table is made.
    Also written to ``DATASET-SEED-llm.json``."""
    study = Study(dataset, data_path, seed, settings)
    rng = np.random.default_rng(stage_seed(seed, "asked"))
    rows = rng.permutation(study.questions()["random"])[:count]
    candidates, counted = study.candidates(rows)
    out.mkdir(parents=True, exist_ok=True)
    lists, tokens, seconds = study.ask(rows, candidates, out / "cache")
    truth = [study.truth[int(row)] for row in rows]
    chance = sum(map(len, truth)) / sum(len(candidates[int(row)]) for row in rows)
    shares = {
        "llm": share_true(lists, truth),
        "counted": share_true([counted[int(row)] for row in rows], truth),
    }
    facts = {"dataset": dataset, "seed": seed, "asked": len(rows), "true": {**shares, "chance": chance}}
    facts |= {"tokens": tokens, "seconds": round(seconds, 2)}
    write_json(out / f"{dataset}-{seed}-llm.json", facts)
    return facts


def main(argv: Sequence[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument(
        "--data-path", default=None, help="folder with the data set's folder; RecBole's own by default"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--item-text", default=None, help="encoder of the table's title edges")
    parser.add_argument(
        "--settings", default=None, type=Path, help="YAML file of settings laid over the study's"
    )
    parser.add_argument("--questions", nargs="+", default=CHOICES, choices=CHOICES, help="items asked about")
    parser.add_argument("--accuracies", nargs="+", default=ACCURACIES, type=float, help="of the simulated")
    parser.add_argument("--ask", type=int, default=0, metavar="N", help="only say how often the LLM is right")
    parser.add_argument("--no-llm", action="store_true", help="simulated teachers only")
    args = parser.parse_args(argv)
    given = read_yaml_file(args.settings, f"--settings {args.settings}") if args.settings else {}
    for seed in args.seeds:
        cache = args.out / "cache"
        own = {"item_text": args.item_text, "label_store": str(cache / "labels.sqlite"), "seed": seed}
        settings = {**own, "checkpoint_dir": str(cache), **given}
        if args.ask:
            print(ask_some(args.dataset, args.data_path, seed, args.out, settings, args.ask))
            continue
        asked = (args.questions, args.accuracies)
        run(args.dataset, args.data_path, seed, args.out, settings, not args.no_llm, *asked)


if __name__ == "__main__":
    main()
