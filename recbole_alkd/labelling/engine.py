"""The one loop by which anything is asked: looks up, claims, reserves, asks, stores.

What is in the store is not asked; what another process is asking is waited for; what the budget has no room
for is left out; every answer is stored durably as it comes.

More than 300 lines: claim, reservation, answer and store of a question are one transaction, whose steps must
be seen together to see that nothing is paid for twice or lost.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Generic

from tqdm import tqdm

from recbole_alkd.bars import progress_bar
from recbole_alkd.labelling.bill import Bill, counted
from recbole_alkd.labelling.interrupt import Interrupt
from recbole_alkd.labelling.question import K, Kind, Question
from recbole_alkd.labelling.workers import Workers
from recbole_alkd.labels.asked import has_rankings
from recbole_alkd.labels.budget import Budget, Reservation
from recbole_alkd.labels.claims import Claims
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.file import LabelStoreError, StoreGoneError
from recbole_alkd.labels.side import SideFile, take_in
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer

logger = logging.getLogger(__name__)


class Engine(Generic[K]):
    """Answers to questions of one kind; ``run`` gets them.

    Args:
        kind: what is particular to these questions.
        questions: with distinct keys and numbers.
        workers: who answers them.
        store, budget: where answers are kept, and what they may take.
        prepare: called once before the first question is sent; gives back what it took of an LLM.
        retry_failed: whether what is stored and of no use is asked for again.

    Attributes:
        known: key -> what is stored of it. missing: key -> what was not asked.
        bill: without ``failed``. repairs: how often the parser repaired what, summed over the answers.
        ended: one sentence on the limit that ended the asking before all was asked, or None.
        stored: what this run of the engine has stored, for the case that the store is deleted meanwhile.
    """

    def __init__(
        self,
        kind: Kind[K],
        questions: Sequence[Question],
        workers: Workers,
        store: LabelStore,
        budget: Budget,
        *,
        prepare: Callable[[], Cost] = Cost,
        retry_failed: bool = False,
        show_progress: bool = False,
    ) -> None:
        self.kind, self.workers, self.store, self.budget = kind, workers, store, budget
        self.known: dict[str, K] = {}
        self.missing = {question.key: question for question in questions}
        self.bill = Bill()
        self.ended: str | None = None
        self.repairs: Counter[str] = Counter()
        self.stored: list[K] = []
        self._prepare, self._retry_failed, self._show_progress = prepare, retry_failed, show_progress
        self._labels = {question.key: question.labels for question in questions}
        # what ends the asking, once the answers that are on their way are kept
        self._problem: AlkdError | None = None
        self._unstorable: LabelStoreError | None = None  # the same, where the store cannot be written
        self._side: SideFile | None = None

    def run(self) -> None:
        """Look up what the store has, and ask for the rest.

        Raises:
            AlkdError: the teacher's answers cannot be trusted, or the store cannot be written;
                what came is kept.
            KeyboardInterrupt: what came is kept.
        """
        take_in(self.store)
        self._look_up(list(self.missing))
        if self.missing:
            self._ask_all()

    def _look_up(self, keys: Sequence[str]) -> None:
        """Move what the store has of ``keys`` from ``missing`` to ``known``."""
        for key, kept in self.kind.find(self.store, keys).items():
            usable = self.kind.is_usable(kept)
            if not usable and self._retry_failed:
                continue
            self.known[key] = kept
            del self.missing[key]
            if usable:
                self.bill += Bill(reused=self._labels[key])
                reservation = self.budget.reserve(labels=self._labels[key])
                if reservation:  # always, unless another thread uses the same budget
                    reservation.settle(labels=self._labels[key])

    def _ask_all(self) -> None:
        prepared = waiting = False
        done = sum(self._labels[key] for key in self.known)
        with (
            Claims(self.store, retry_failed=self._retry_failed) as claims,
            # what costs nothing can be had again
            nullcontext() if self.workers.instant else SideFile(self.store.path) as self._side,
            # the bar starts at what the store had, so that its rate and remaining time are those of the
            # asking
            progress_bar(
                total=sum(self._labels.values()),
                initial=done,
                desc="Labelling",
                unit="label",
                disable=not self._show_progress,
                delay=1e-9,
            ) as bar,
        ):
            self._claims = claims
            while self.missing:
                mine = self._take()
                if not self.missing:
                    break
                if not mine:
                    if not waiting:
                        names = " and ".join(claims.others(self._claimed(self.missing))) or "another process"
                        logger.info(
                            "%s is asking for %d of these %s: waiting for it",
                            names,
                            len(self.missing),
                            self.kind.things,
                        )
                        waiting = True
                    time.sleep(0.2)
                    self._look_up(list(self.missing))
                    bar.update(sum(self._labels[key] for key in self.known) - bar.n)
                    continue
                if not prepared and self._fits(mine[0]):
                    self._pay(self._prepare())
                    prepared = True
                    bar.unpause()  # its time begins here: loading and tuning are not labelling
                reservations = self._reserve(mine)
                claims.release(self._claimed(mine[len(reservations) :]))
                if not reservations:
                    self.ended = self.budget.refusal
                    self._look_up(list(self.missing))  # what other processes have stored meanwhile is free
                    return
                wanted = {key: self.missing.pop(key) for key in reservations}
                lost = self._ask(wanted, reservations, bar)
                # a request that got no answer is left to the next run
                claims.release(self._claimed(key for key in mine if key not in self.known))
                # another process has asked these meanwhile: what it stores is waited for
                self.missing.update(
                    {key: one for key, one in wanted.items() if key in lost and key not in self.known}
                )

    def _claimed(self, keys: Iterable[str]) -> list[str]:
        return [self.kind.claim(key) for key in keys]

    def _take(self) -> list[str]:
        """Keys that are this process's to ask now."""
        of_claim = {self.kind.claim(key): key for key in self.missing}
        mine = [of_claim[claim] for claim in self._claims.take(of_claim, self.workers.chunk)]
        self._look_up(mine)  # another process may have stored it just before
        self._claims.release(self._claimed(key for key in mine if key in self.known))
        return [key for key in mine if key not in self.known]

    def _fits(self, key: str) -> bool:
        """Whether the budget allows one request at all: nothing is loaded or trained otherwise."""
        reservations = self._reserve([key])
        for reservation in reservations.values():
            reservation.release()
        return bool(reservations)

    def _reserve(self, keys: Sequence[str]) -> dict[str, Reservation]:
        """A reservation for each of ``keys`` up to the first that does not fit."""
        reservations: dict[str, Reservation] = {}
        for key in keys:
            most = self.kind.bound(self.missing[key])
            reservation = self.budget.reserve(most.tokens, most.usd, labels=self._labels[key], key=key)
            if reservation is None:
                break
            reservations[key] = reservation
        return reservations

    def _ask(
        self, wanted: Mapping[str, Question], reservations: dict[str, Reservation], bar: tqdm
    ) -> set[str]:
        """Ask, store, settle. Gives back the keys that were not sent because another process has asked them
        meanwhile.

        Raises:
            AlkdError: what ended it, after all answers that were on their way are kept.
        """
        start = time.monotonic()
        lost: set[str] = set()

        def may_send(question: Question) -> bool:
            if self._problem or self._unstorable or not self._claims.hold(self.kind.claim(question.key)):
                lost.add(question.key)
                return False
            reservation = reservations.get(question.key)
            if reservation:
                reservation.begin()
            return True

        def has_answered() -> bool:
            return has_rankings(self.store, self.kind.identity)

        groups = self.workers.answers(list(wanted.values()), may_send, dict(reservations), has_answered)
        try:
            with Interrupt(self.workers.stop) as interrupt:
                for group in groups:
                    answered = [
                        (question, counted(answer, reservations.get(question.key)))
                        for question, answer in group
                    ]
                    try:
                        self._record(answered)
                    finally:
                        for question, answer in answered:
                            self._settle(question, answer, reservations.pop(question.key, None))
                            bar.update(self._labels[question.key])
                    if (self._problem or self._unstorable) and not interrupt.came:
                        interrupt.end()
                    if interrupt.came and not interrupt.more_to_come:
                        break
                self._raise_problem()
                if interrupt.came:
                    raise KeyboardInterrupt
        finally:
            if isinstance(groups, Generator):
                groups.close()  # requests in flight end before their reservations do
            for reservation in reservations.values():
                reservation.release()
            self.bill += Bill(cost=Cost(seconds=time.monotonic() - start))
        return lost

    def _raise_problem(self) -> None:
        if self._unstorable:
            words = [str(self._problem)] if self._problem else []
            words += [str(self._unstorable), *([self._side.told()] if self._side else [])]
            raise type(self._unstorable)("; ".join(words))
        if self._problem:
            raise self._problem

    def _record(self, answered: Sequence[tuple[Question, Answer]]) -> None:
        """Put a group of answers into the store, or beside it, before anything else is done with it."""
        read: list[K] = []
        for question, answer in answered:
            if answer.status == "unanswered":
                continue
            kept = self.kind.read(question, answer)
            read.append(kept)
            problem = self.kind.problem(question, answer, kept)
            if problem and not self._problem:
                self._problem = AlkdError(problem)
        try:
            if self._unstorable:  # it was given up before: the user has waited long enough
                raise self._unstorable
            stored = self.kind.put(self.store, read)
        except BaseException as error:  # Ctrl-C among them
            if self._side:
                self.kind.keep_aside(
                    self._side, [*self.stored, *read] if isinstance(error, StoreGoneError) else read
                )
            if not isinstance(error, LabelStoreError):
                raise
            self.stored = [] if isinstance(error, StoreGoneError) else self.stored
            self._unstorable = error
            return
        self.stored += read
        self.known.update({self.kind.key(kept): kept for kept in read})
        if stored < len(read):  # where another process was first, what it stored is everyone's
            self.known.update(self.kind.find(self.store, [self.kind.key(kept) for kept in read]))

    def _settle(self, question: Question, answer: Answer, reservation: Reservation | None) -> None:
        labels, cost = self._labels[question.key], answer.cost
        usable = question.key in self.known and self.kind.is_usable(self.known[question.key])
        if reservation:
            # an answer that was paid for counts, also where no ranking came of it
            reservation.settle(cost.tokens, cost.usd, labels=0 if cost.is_free and not usable else labels)
            if reservation.overdrawn and self.budget.limited:
                self._problem = self._problem or AlkdError(
                    f"llm_teacher: {self.kind.identity!r}, {question.name}: {reservation.overdrawn}: "
                    "what it states as the "
                    "most must be an upper bound, or no budget holds; the answer is kept"
                )
        self._pay(cost)
        self.bill += Bill(asked=labels, repaired=labels if usable and answer.repairs else 0)
        if isinstance(answer.repairs, Mapping):
            self.repairs.update(answer.repairs)

    def _pay(self, cost: Cost) -> None:
        """Tokens and dollars go on the bill, whose seconds are wall time."""
        self.bill += Bill(cost=dataclasses.replace(cost, seconds=0.0))

    def check_store(self) -> None:
        """StoreGoneError where the store was deleted behind the last write;
        what was stored is kept beside it."""
        try:
            self.store.check_place()
        except StoreGoneError as error:
            with SideFile(self.store.path) as side:
                self.kind.keep_aside(side, self.stored)
                raise StoreGoneError(f"{error}; {side.told()}") from None
