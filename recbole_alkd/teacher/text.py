"""`text`: what titles say without any LLM; the control that an LLM teacher has to beat.

The score of the candidate at rank r of the teacher recommender is

    -log r + 0.25 * z,

with z its title's similarity to the session, standardised over the candidates: the cosine of TF-IDF weighted
character 3- to 5-grams, averaged over the last ``llm_history`` items with weights 1, 1/2, 1/4, ...
from the last one back.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher
from recbole_alkd.teacher.prompt import title_of

WEIGHT = 0.25
DECAY = 0.5


@teachers.register("text")
class TextTeacher(LLMTeacher):
    """TF-IDF of titles, fused with the teacher recommender's order."""

    instant = True
    takes_recommender_order = True

    @property
    def identity(self) -> str:
        settings = self.context.settings.teacher
        return (
            "text|char "
            f"3-5|titles:{self._titles_hash}|history={settings.llm_history}|top_n={settings.llm_top_n}"
        )

    @property
    def origin(self) -> str:
        return "ordered by titles and the teacher recommender"

    @cached_property
    def _titles_hash(self) -> str:
        """Of all titles: the rarity of an n-gram depends on every one of them."""
        return hashlib.sha256(json.dumps(sorted(self.context.titles.items())).encode()).hexdigest()[:16]

    def prompt(self, instance: Instance) -> str:
        """Nothing besides history and candidates, which are in the key already."""
        return ""

    @cached_property
    def _vectors(self) -> Any:
        """(n_titles, n_grams) sparse matrix with rows of length 1, and the row of every title."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        titles = sorted(set(self.context.titles.values()))
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float64)
        try:
            matrix = vectorizer.fit_transform(titles)
        except ValueError:  # scikit-learn's word for a vocabulary without a single n-gram
            raise AlkdError(
                "llm_teacher: 'text' finds no title with three characters in this data set"
            ) from None
        return matrix, {title: row for row, title in enumerate(titles)}

    def prepare(self) -> None:
        """Fit the TF-IDF weights on all titles."""
        _ = self._vectors

    def similarity(self, instance: Instance) -> np.ndarray:
        """(N,) similarity of every candidate's title to the session, in [0, 1]."""
        matrix, row_of = self._vectors
        history = instance.history[-self.context.settings.teacher.llm_history :]
        rows = [
            [row_of[title_of(token, self.context.titles)] for token in items]
            for items in (instance.candidates, history)
        ]
        weights = DECAY ** np.arange(len(history))[::-1]
        cosines = (matrix[rows[0]] @ matrix[rows[1]].T).toarray()
        return cosines @ (weights / weights.sum())

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        self.prepare()
        for instance in instances:
            began = time.perf_counter()
            similarity = self.similarity(instance)
            deviation = similarity.std()
            z = (similarity - similarity.mean()) / deviation if deviation > 0 else np.zeros_like(similarity)
            scores = -np.log(np.arange(1, len(z) + 1)) + WEIGHT * z
            order = np.argsort(-scores, kind="stable")[: self.context.settings.teacher.llm_top_n]
            raw = json.dumps(
                {
                    token: round(float(score), 4)
                    for token, score in zip(instance.candidates, scores, strict=True)
                }
            )
            yield (
                instance,
                Answer(
                    tuple(instance.candidates[i] for i in order), raw, seconds=time.perf_counter() - began
                ),
            )
