"""Actors of a Ray cluster, as many as its nodes have room for, and what they are given to do.

An actor that dies, with its process or with its node, is replaced as long as the cluster has a place for it,
and what it had not done is given to another. Plain actors of Ray 2.49 and later, which runs on Python 3.12
and later beside RecBole 1.2.1.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from recbole_alkd.labelling.ray_cluster import check_ray, look_for
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)

PATIENCE = 1800.0  # seconds without any actor that is ready, after which the cluster is given up
TRIES = 3  # actors that may die over the same piece of work
Piece = TypeVar("Piece")


@dataclass(eq=False)
class Worker(Generic[Piece]):
    """One actor: where it is, and what it is doing."""

    node: str
    actor: Any
    ready: Any  # resolves when its model is loaded
    sent: list[Piece] = field(default_factory=list)
    answer: Any = None


@dataclass(frozen=True)
class ActorKind:
    """What actors are.

    Attributes:
        cls: a class with ``load()`` and ``answer(pieces)``. material: what it is made with, plain data.
        threads: CPUs of an actor; None: one actor for a node. gpu: whether it takes a GPU instead.
    """

    cls: type
    material: dict[str, Any]
    threads: int | None
    gpu: bool


class RayActors(Generic[Piece]):
    """A node has room for one actor for each of its GPUs where the model runs on a GPU, else for one for each
    ``threads`` CPUs.

    Args:
        address: of the cluster; None: a cluster of this machine alone, for as long as this object is open.
        key, name: of a piece of work: what tells it from others, and what it is called.
    """

    def __init__(
        self,
        kind: ActorKind,
        address: str | None,
        key: Callable[[Piece], str],
        name: Callable[[Piece], str],
    ) -> None:
        check_ray()
        self._kind, self._address, self._key, self._name = kind, address, key, name
        self._workers: list[Worker[Piece]] = []
        self._died: Counter[str] = Counter()  # key of a piece, or a node -> actors that died over it
        self._connected = self._started = False

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
        waiting: deque[Piece],
        take: Callable[[deque[Piece]], list[Piece]],
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[list[Piece], Any]]:
        """Pieces that were done together, with what the actor gave, as they come.

        Args:
            waiting: what is to be done; pieces of actors that died come back to its front.
            take: takes from its front what an actor is given next; nothing where nothing is to be given.
            stopped: whether nothing more is given.

        Raises:
            AlkdError: no cluster or no room there, what an actor raised, or too many of them died over the
                same piece.
        """
        import ray

        self._connect()
        last = time.monotonic()  # when an actor was ready
        while waiting or any(worker.sent for worker in self._workers):
            if stopped():
                waiting.clear()
            self._fill()
            last = self._check_patience(last)
            for worker in self._workers:
                if not worker.sent and self._is_loaded(worker):
                    self._send(worker, take(waiting))
            flying = {worker.answer: worker for worker in self._workers if worker.sent}
            if not flying:
                time.sleep(0.1)
                continue
            done, _ = ray.wait(list(flying), num_returns=1, timeout=0.5)
            for answer in done:
                worker = flying[answer]
                asked, worker.sent = worker.sent, []
                try:
                    given = self._got(answer)
                except _LostError as why:
                    self._lose(worker, str(why))
                    waiting.extendleft(reversed(self._again(asked, str(why))))
                else:
                    yield asked, given

    def _send(self, worker: Worker[Piece], pieces: list[Piece]) -> None:
        if pieces:
            worker.sent, worker.answer = pieces, worker.actor.answer.remote(pieces)

    def _is_loaded(self, worker: Worker[Piece]) -> bool:
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
                    f"label_engine: {TRIES} actors died on node {worker.node[:8]} while they loaded the "
                    f"model: {why}"
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

    def _lose(self, worker: Worker[Piece], why: str) -> None:
        import ray

        logger.warning(
            "label_engine: an actor on node %s is lost (%s); what it had not answered is asked again",
            worker.node[:8], why,
        )  # fmt: skip
        self._workers = [one for one in self._workers if one is not worker]
        ray.kill(worker.actor)

    def _again(self, asked: list[Piece], why: str) -> list[Piece]:
        for piece in asked:
            self._died[self._key(piece)] += 1
            if self._died[self._key(piece)] >= TRIES:
                raise AlkdError(
                    f"label_engine: {TRIES} actors died while they were asked about {self._name(piece)} and "
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
                "nothing else of the cluster holds, and the time to load the model"
            )
        return last

    def _needs(self) -> str:
        if self._kind.gpu:
            return "a GPU"
        cpus = self._kind.threads or 1
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

        gpu, threads = self._kind.gpu, self._kind.threads
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        for worker in [one for one in self._workers if one.node not in alive and not one.sent]:
            self._lose(worker, "its node is gone")
        there = Counter(worker.node for worker in self._workers)
        for node, resources in alive.items():
            cpus = int(resources.get("CPU", 0))
            room = int(resources.get("GPU", 0)) if gpu else (cpus // threads if threads else min(1, cpus))
            for _ in range(room - there[node]):
                remote: Any = ray.remote(self._kind.cls)
                actor = remote.options(
                    num_cpus=0 if gpu else (threads or 1),
                    num_gpus=1 if gpu else 0,
                    max_restarts=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                ).remote(self._kind.material)  # fmt: skip
                self._workers.append(Worker(node, actor, actor.load.remote()))


class _LostError(Exception):
    """An actor is dead, with what it was asked."""
