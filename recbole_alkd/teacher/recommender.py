"""`recommender`: the teacher recommender's own order instead of an LLM's, the paper's ablation TR.

What is distilled then is the large recommender, through the same store, budget and loss as any LLM's
rankings. An LLM teacher that does not beat this control adds nothing that the recommender does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recbole_alkd.registry import teachers
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher


@teachers.register("recommender")
class RecommenderTeacher(LLMTeacher):
    """The first ``llm_top_n`` candidates as they stand. An inserted target stands last,
    as it would be ranked."""

    needs_titles = False
    instant = True
    asks_llm = False
    takes_recommender_order = True

    @property
    def identity(self) -> str:
        return f"recommender|top_n={self.context.settings.teacher.llm_top_n}"

    @property
    def origin(self) -> str:
        return "ordered by the teacher recommender"

    def prompt(self, instance: Instance) -> str:
        """Nothing besides the candidates, which are in the key already."""
        return ""

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        for instance in instances:
            yield instance, Answer(instance.candidates[: self.context.settings.teacher.llm_top_n])
