"""``label_engine: ray``: actors of a Ray cluster hold the local LLM and its adapter, and answer questions.

The driver, this process, owns store, budget and claims: it sends questions, which are data, and gets answers.
Actors never see the label store. One that dies, with its process or with its node, is replaced as long as the
cluster has a place for it, and the questions that it had not answered are asked again. Plain actors of Ray
2.49 and later, which runs on Python 3.12 and later beside RecBole 1.2.1.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recbole_alkd.labelling.question import Question
from recbole_alkd.labelling.ray_actor import RayActor, actor_material
from recbole_alkd.labelling.ray_cluster import check_ray, look_for
from recbole_alkd.labelling.workers import Answered
from recbole_alkd.labels.budget import Reservation
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import LLMTeacher, Materials

logger = logging.getLogger(__name__)

PATIENCE = 1800.0  # seconds without any actor that is ready, after which the cluster is given up
TRIES = 3  # actors that may die over the same questions
CHUNK = 512  # questions that are handed over at once


@dataclass(eq=False)
class _Worker:
    """One actor: where it is, and the questions that it is answering."""

    node: str
    actor: Any
    ready: Any  # resolves when the LLM is loaded
    sent: list[Question] = field(default_factory=list)
    answer: Any = None


class RayWorkers:
    """``Workers`` that are the actors of a Ray cluster, as many as its nodes have room for.

    A node has room for one actor for each of its GPUs where the LLM runs on a GPU, else for one for each
    ``llm_threads`` CPUs (``~``: one).

    Args:
        teacher: the ``local`` teacher of this process; it trains the adapter and writes the hints.
        address: of the cluster; None: a cluster of this machine alone, for as long as this object is open.
    """

    instant = False
    chunk = CHUNK

    def __init__(self, teacher: LLMTeacher, address: str | None) -> None:
        check_ray()
        self._teacher, self._address = teacher, address
        self._material: dict[str, Any] | None = None
        self._workers: list[_Worker] = []
        self._died: Counter[str] = Counter()  # key of a question -> actors that died over it
        self._stopped = self._connected = self._started = False

    def ready(self, materials: Materials) -> None:
        """The teacher here is prepared, with ``materials``: its LLM leaves this process, and what actors need
        of it is put together."""
        self._material = actor_material(self._teacher, materials)
        self._teacher.close()

    def stop(self) -> bool:
        """Send nothing more; answers that are on their way still come."""
        self._stopped = True
        return True

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        if not self._connected:
            return
        import ray

        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers = []
        if self._started:
            ray.shutdown()
        self._connected = False

    def answers(
        self,
        questions: Sequence[Question],
        may_send: Callable[[Question], bool],
        reservations: Mapping[str, Reservation],
        has_answered: Callable[[], bool],
    ) -> Iterator[Answered]:
        """See ``Workers``."""
        import ray

        assert self._material is not None, "ready comes first"
        self._connect()
        waiting, begun = deque(questions), set[str]()
        last = time.monotonic()  # when an actor was ready
        while waiting or any(worker.sent for worker in self._workers):
            if self._stopped:
                waiting.clear()
            self._fill()
            last = self._check_patience(last)
            for worker in self._workers:
                if not worker.sent and self._is_loaded(worker):
                    self._send(worker, waiting, begun, may_send)
            flying = {worker.answer: worker for worker in self._workers if worker.sent}
            if not flying:
                time.sleep(0.1)
                continue
            done, _ = ray.wait(list(flying), num_returns=1, timeout=0.5)
            for answer in done:
                worker = flying[answer]
                asked, worker.sent = worker.sent, []
                try:
                    answered = self._got(answer)
                except _LostError as why:
                    self._lose(worker, str(why))
                    waiting.extendleft(reversed(self._again(asked, str(why))))
                else:
                    by_number = {question.number: question for question in asked}
                    yield [(by_number[number], one) for number, one in answered]

    def _send(
        self,
        worker: _Worker,
        waiting: deque[Question],
        begun: set[str],
        may_send: Callable[[Question], bool],
    ) -> None:
        """Hand the next questions over. Leave is asked for once: a question that comes back was sent."""
        assert self._material is not None
        asked: list[Question] = []
        while waiting and len(asked) < self._material["group"]:
            question = waiting.popleft()
            if question.key in begun or may_send(question):
                begun.add(question.key)
                asked.append(question)
        if asked:
            worker.sent, worker.answer = asked, worker.actor.answer.remote(asked)

    def _is_loaded(self, worker: _Worker) -> bool:
        import ray

        if worker.ready is None:
            return True
        done, _ = ray.wait([worker.ready], timeout=0)
        if not done:
            return False
        try:
            self._got(worker.ready)
        except _LostError as why:
            self._lose(worker, str(why))
            self._died[worker.node] += 1
            if self._died[worker.node] >= TRIES:
                raise AlkdError(
                    f"label_engine: {TRIES} actors died on node {worker.node[:8]} while they loaded the LLM: "
                    f"{why}"
                ) from None
            return False
        worker.ready = None
        return True

    def _got(self, reference: Any) -> Any:
        """What an actor gives.

        Raises:
            _LostError: it is dead. AlkdError: what it raised.
        """
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, AlkdError):
                raise AlkdError(f"label_engine: on a node of the cluster: {cause}") from None
            raise AlkdError(f"label_engine: on a node of the cluster: {cause!r}"[:500]) from None
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise _LostError(lines[0][:200]) from None

    def _lose(self, worker: _Worker, why: str) -> None:
        import ray

        logger.warning(
            "label_engine: an actor on node %s is lost (%s); what it had not answered is asked again",
            worker.node[:8], why,
        )  # fmt: skip
        self._workers = [one for one in self._workers if one is not worker]
        ray.kill(worker.actor)

    def _again(self, asked: list[Question], why: str) -> list[Question]:
        for question in asked:
            self._died[question.key] += 1
            if self._died[question.key] >= TRIES:
                raise AlkdError(
                    f"label_engine: {TRIES} actors died while they were asked about {question.name} and "
                    f"those with it: {why}"
                )
        return asked

    def _check_patience(self, last: float) -> float:
        """``last``, or now where an actor is loaded: a cluster without room is given up in the end."""
        if any(worker.ready is None for worker in self._workers):
            return time.monotonic()
        if time.monotonic() - last > PATIENCE:
            raise AlkdError(
                f"label_engine: no actor was ready within {PATIENCE:g} s; needed: {self._needs()} that "
                "nothing else of the cluster holds, and the time to load the LLM"
            )
        return last

    def _needs(self) -> str:
        assert self._material is not None
        if self._material["gpu"]:
            return "a GPU"
        cpus = self._material["threads"] or 1
        return f"{cpus} CPU{'s' if cpus > 1 else ''}"

    def _connect(self) -> None:
        import ray

        if self._connected:
            return
        if not ray.is_initialized():
            if self._address:
                look_for(self._address)
            own: dict[str, Any] = {} if self._address else {"include_dashboard": False}
            try:
                ray.init(
                    address=self._address or "local", log_to_driver=False, logging_level=logging.ERROR, **own
                )
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                words = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
                raise AlkdError(f"ray_address: {self._address!r}: no cluster there: {words}") from None
            self._started = True
        self._connected = True

    def _fill(self) -> None:
        """Start the actors that the living nodes have room for and that are not there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        assert self._material is not None
        gpu, threads = self._material["gpu"], self._material["threads"]
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        for worker in [one for one in self._workers if one.node not in alive and not one.sent]:
            self._lose(worker, "its node is gone")
        there = Counter(worker.node for worker in self._workers)
        for node, resources in alive.items():
            cpus = int(resources.get("CPU", 0))
            room = int(resources.get("GPU", 0)) if gpu else (cpus // threads if threads else min(1, cpus))
            for _ in range(room - there[node]):
                kind: Any = ray.remote(RayActor)
                actor = kind.options(
                    num_cpus=0 if gpu else (threads or 1),
                    num_gpus=1 if gpu else 0,
                    max_restarts=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                ).remote(self._material)  # fmt: skip
                self._workers.append(_Worker(node, actor, actor.load.remote()))


class _LostError(Exception):
    """An actor is dead, with what it was asked."""

