"""`null`: the candidates in an order that knows nothing, the floor under every LLM teacher.

The order is the shuffled one in which an LLM would be shown the candidates, so this is also what an LLM
answers that repeats its prompt. What distilling it is worth comes from the candidate lists alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recbole_alkd.registry import teachers
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher
from recbole_alkd.teacher.prompt import shown_order


@teachers.register("null")
class NullTeacher(LLMTeacher):
    """The first ``llm_top_n`` of the candidates, shuffled by ``llm_seed`` and the session."""

    needs_titles = False
    instant = True
    asks_llm = False
    takes_recommender_order = True  # it shuffles them by itself

    @property
    def identity(self) -> str:
        settings = self.context.settings.teacher
        return f"null|seed={settings.llm_seed}|top_n={settings.llm_top_n}"

    @property
    def origin(self) -> str:
        return "ordered at random"

    def prompt(self, instance: Instance) -> str:
        """The session's name, which the shuffling starts from."""
        return instance.session

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        settings = self.context.settings.teacher
        for instance in instances:
            yield instance, Answer(shown_order(instance, settings.llm_seed)[: settings.llm_top_n])
