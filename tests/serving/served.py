"""Students with random or counted parameters on the tiny data set, as bundles, and the trainer's own scores
beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data import data_preparation
from scipy.sparse import csr_array
from tiny import create_dataset, tiny_config, tiny_model, write_benchmark

from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.serving import Recommender
from recbole_alkd.serving.make import make_bundle

SETTINGS = {"AttMix": {"student_config": {"heads": 1, "last_k": 3}}}


class Served(NamedTuple):
    """A model, the bundle that was made of it, the loader of test sessions, item tokens by number, and the
    training part."""

    model: Any
    bundle: Path
    test: Any
    tokens: np.ndarray
    train: Any

    def evaluated(self) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
        """Sessions of the test part, their targets, and the trainer's scores (sessions, n_items)."""
        sessions, targets, scores = [], [], []
        for batch, *_ in self.test:
            with torch.no_grad():
                scores.append(self.model.full_sort_predict(batch).numpy())
            targets.append(batch["item_id"].numpy())
            for row, length in zip(batch["item_id_list"].numpy(), batch["item_length"].numpy(), strict=True):
                sessions.append(self.tokens[row[:length]].tolist())
        return sessions, np.concatenate(targets), np.concatenate(scores)


def titles_file(folder: Path, dataset: str = "tiny", n_items: int = 30) -> None:
    lines = [
        "item_id:token\ttitle:token_seq",
        *(f"i{k}\tThe {k}. film of <b>many</b>" for k in range(1, n_items + 1)),
    ]
    (folder / dataset / f"{dataset}.item").write_text("\n".join(lines) + "\n", encoding="utf-8")


def serve(
    folder: Path, name: str, fusion: bool = False, edges: bool = False, titles: bool = True, **settings: Any
) -> Served:
    """The student ``name`` on the tiny data set. fusion: with titles laid over it. edges: with two sets
    beside the counts."""
    if not (folder / "data").exists():
        write_benchmark(folder / "data")
        if titles:
            titles_file(folder / "data")
    config = tiny_config(folder / "data", **{"student_model": name, **SETTINGS.get(name, {}), **settings})
    train, valid, test = data_preparation(config, create_dataset(config))
    model = tiny_model(config, train._dataset).eval()
    rng = np.random.default_rng(3)
    if name == "SessionKNN":
        more = {"text": edge_maker(rng), "pairwise": edge_maker(rng)} if edges else {}
        if model.recommender.text.item_text:
            more["text"] = ItemText(model.recommender.text, train._dataset).edges
        model.recommender.fit_table(train._dataset, valid._dataset, more)
    if fusion:
        model.titles.set(rng.normal(size=(model.n_items, 4)).astype(np.float32))
    bundle = make_bundle(model, train._dataset, folder / f"bundle-{name}-{fusion}-{edges}-{len(settings)}")
    return Served(model, bundle, test, train._dataset.field2id_token["item_id"], train._dataset)


def edge_maker(rng: np.random.Generator) -> Any:
    edges = csr_array(np.triu(rng.random((31, 31)) * (rng.random((31, 31)) < 0.2), 1).astype(np.float32))
    return lambda weighing: edges


def ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The trainer's ranks of targets under scores (sessions, n_items)."""
    return mean_ranks(torch.from_numpy(scores), torch.from_numpy(targets)).numpy()


def bundle_scores(recommender: Recommender, sessions: list[list[str]], masked: bool = False) -> np.ndarray:
    scores = np.stack([recommender.scores(session) for session in sessions])
    if masked:
        for row, session in zip(scores, sessions, strict=True):
            row[recommender.numbers(session)] = -np.inf
    return scores
