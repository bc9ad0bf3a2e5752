"""``label_engine: ray``: actors of a Ray cluster hold the local LLM and its adapter, and answer questions.

The driver, this process, owns store, budget and claims: it sends questions, which are data, and gets answers.
Actors never see the label store. Questions of an actor that died are asked again (``ray_actors.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from recbole_alkd.labelling.question import Question
from recbole_alkd.labelling.ray_actor import RayActor, actor_material
from recbole_alkd.labelling.ray_actors import ActorKind, RayActors
from recbole_alkd.labelling.ray_cluster import check_ray
from recbole_alkd.labelling.workers import Answered
from recbole_alkd.labels.budget import Reservation
from recbole_alkd.teacher.base import LLMTeacher, Materials

CHUNK = 512  # questions that are handed over at once


class RayWorkers:
    """``Workers`` that are the actors of a Ray cluster, as many as its nodes have room for, with one GPU or
    ``llm_threads`` CPUs each (``~``: one actor a node).

    Args:
        teacher: the ``local`` teacher of this process; it trains the adapter and writes the hints.
        address: of the cluster; None: a cluster of this machine alone, for as long as this object is open.
    """

    instant = False
    chunk = CHUNK

    def __init__(self, teacher: LLMTeacher, address: str | None) -> None:
        check_ray()
        self._teacher, self._address = teacher, address
        self._actors: RayActors[Question] | None = None
        self._group = 1  # questions that an actor is given together
        self._stopped = False

    def ready(self, materials: Materials) -> None:
        """The teacher here is prepared, with ``materials``: its LLM leaves this process, and what actors need
        of it is put together."""
        material = actor_material(self._teacher, materials)
        self._teacher.close()
        self._group = material["group"]
        kind = ActorKind(RayActor, material, material["threads"], material["gpu"])
        self._actors = RayActors(
            kind, self._address, lambda question: question.key, lambda question: question.name
        )

    def stop(self) -> bool:
        """Send nothing more; answers that are on their way still come."""
        self._stopped = True
        return True

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        if self._actors:
            self._actors.close()

    def answers(
        self,
        questions: Sequence[Question],
        may_send: Callable[[Question], bool],
        reservations: Mapping[str, Reservation],
        has_answered: Callable[[], bool],
    ) -> Iterator[Answered]:
        """See ``Workers``."""
        assert self._actors is not None, "ready comes first"
        begun = set[str]()

        def take(waiting: deque[Question]) -> list[Question]:
            """Leave is asked for once: a question that comes back was sent."""
            asked: list[Question] = []
            while waiting and len(asked) < self._group:
                question = waiting.popleft()
                if question.key in begun or may_send(question):
                    begun.add(question.key)
                    asked.append(question)
            return asked

        for asked, answered in self._actors.answers(deque(questions), take, lambda: self._stopped):
            by_number = {question.number: question for question in asked}
            yield [(by_number[number], one) for number, one in answered]
