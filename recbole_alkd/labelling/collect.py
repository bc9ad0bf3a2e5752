"""Turns chosen instances into labels: looked up first, asked only where missing, stored as each answer comes.

This is the one place where any teacher is asked for rankings, the controls included, so every one of them goes through
the same store and the same budget (paper, Module 2: the subset B of Eq. 1 and its rankings).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from recbole_alkd.labelling.bill import Bill
from recbole_alkd.labelling.interrupt import Interrupt
from recbole_alkd.labels.budget import Budget, Reservation
from recbole_alkd.labels.claims import Claims
from recbole_alkd.labels.cost import Cost, read_amount, read_count
from recbole_alkd.labels.file import LabelStoreError, StoreGoneError
from recbole_alkd.labels.label import Label, label_key, to_row
from recbole_alkd.labels.side import SideFile, take_in
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, bound_of

logger = logging.getLogger(__name__)
_LONGEST_RAW = 1_000_000  # characters of an answer that are kept


@dataclass(frozen=True)
class Labelling:
    """The labels of one call of ``collect_labels``.

    Attributes:
        labels: row -> ok label, in the order of the instances.
        bill: what they took.
        repairs: how often the parser mended what, summed over the answers of this run.
        ended: one sentence on the limit that ended the asking before all was asked, or None.
        missing: rows of the instances that were never asked, or whose request got no answer: the next run asks them.
    """

    labels: dict[int, Label]
    bill: Bill
    repairs: dict[str, int] = field(default_factory=dict)
    ended: str | None = None
    missing: tuple[int, ...] = ()


def keys_of(teacher: LLMTeacher, instances: Sequence[Instance]) -> list[str]:
    """The label key of every instance."""
    identity = teacher.identity
    return [label_key(i.history, i.candidates, teacher.prompt(i), identity) for i in instances]


def questions_of(teacher: LLMTeacher, instances: Sequence[Instance]) -> dict[str, Instance]:
    """Label key -> the first instance that asks for it, in the order of the instances."""
    questions: dict[str, Instance] = {}
    for key, instance in zip(keys_of(teacher, instances), instances, strict=True):
        questions.setdefault(key, instance)
    return questions


def collect_labels(
    teacher: LLMTeacher,
    instances: Sequence[Instance],
    store: LabelStore,
    budget: Budget,
    *,
    show_progress: bool,
    retry_failed: bool = False,
) -> Labelling:
    """The labels of ``instances``: from the store where it has them, from the teacher where it does not.

    ``teacher.prepare`` is called once, and only when a label is missing. Every answer is stored durably as it comes.
    Reused labels count towards ``budget_labels`` and cost nothing; where the instances outnumber what is left of
    ``budget_labels``, the first ones are taken. What another process is asking at this moment is not asked again but
    waited for. Failed labels are final unless ``retry_failed``; an answer with the status "unanswered" is not stored.

    Raises:
        AlkdError: the teacher ranked what is no candidate, or one candidate twice.
        KeyboardInterrupt: passed on; all labels that came are in the store, and the log says how many.
    """
    return _Collection(teacher, instances, store, budget, show_progress, retry_failed).run()


class _Collection:
    """The state of one ``collect_labels``."""

    def __init__(
        self,
        teacher: LLMTeacher,
        instances: Sequence[Instance],
        store: LabelStore,
        budget: Budget,
        show_progress: bool,
        retry_failed: bool,
    ) -> None:
        self.teacher, self.store, self.budget, self.retry_failed = teacher, store, budget, retry_failed
        self.all_rows = [instance.row for instance in instances]
        left = budget.left.labels
        self.instances = list(instances) if left is None else list(instances[:left])
        self.identity = teacher.identity
        self.keys = keys_of(teacher, self.instances)
        self.rows = Counter(self.keys)
        self.known: dict[str, Label] = {}
        self.missing: dict[str, Instance] = {}  # instances with the same key are asked once
        for key, instance in zip(self.keys, self.instances, strict=True):
            self.missing.setdefault(key, instance)
        self.repairs: Counter[str] = Counter()
        self.bill = Bill()
        self.ended: str | None = None
        self.problem: AlkdError | None = None  # what ends the asking, once the answers that are on their way are kept
        self.unstorable: LabelStoreError | None = None  # the same, where the store cannot be written
        self.stored: list[Label] = []  # by this call
        self.side: SideFile | None = None
        self.show_progress = show_progress

    def run(self) -> Labelling:
        try:
            take_in(self.store)
            self._look_up()
            if self.missing:
                self._ask_all()
        except KeyboardInterrupt:
            logger.warning(
                "interrupted: %d rankings are kept in %s, %d of them new; the next run goes on from there",
                len(self._labels()), self.store.path, self.bill.asked,
            )  # fmt: skip
            raise
        return self._result()

    def _look_up(self) -> None:
        """Move what is in the store from ``missing`` to ``known``."""
        for key, label in self.store.get_many(list(self.missing)).items():
            if label.status == "failed" and self.retry_failed:
                continue
            self.known[key] = label
            del self.missing[key]
            if label.status == "ok":
                self.bill += Bill(reused=self.rows[key])
                reservation = self.budget.reserve(labels=self.rows[key])
                if reservation:  # always, unless another thread uses the same budget
                    reservation.settle(labels=self.rows[key])

    def _ask_all(self) -> None:
        prepared = waiting = False
        done = sum(self.rows[key] for key in self.known)
        with (
            Claims(self.store, retry_failed=self.retry_failed) as claims,
            # what costs nothing can be had again
            nullcontext() if self.teacher.instant else SideFile(self.store.path) as side,
            # the bar starts at what the store had, so that its rate and remaining time are those of the asking
            tqdm(
                total=len(self.instances), initial=done, desc="Labelling", unit="label", disable=not self.show_progress, delay=1e-9
            ) as bar,
        ):
            self.claims, self.side = claims, side
            while self.missing:
                mine = claims.take(self.missing, self.teacher.chunk)
                if not mine:
                    if not waiting:
                        others = " and ".join(claims.others(list(self.missing))) or "another process"
                        logger.info("%s is asking for %d of these labels: waiting for it", others, len(self.missing))
                        waiting = True
                    time.sleep(0.2)
                    self._look_up()
                    bar.update(sum(self.rows[key] for key in self.known) - bar.n)
                    continue
                if not prepared and self._fits(mine[0]):
                    self._prepare()
                    prepared = True
                    bar.unpause()  # its time begins here: loading and tuning are not labelling
                reservations = self._reserve(mine)
                claims.release(mine[len(reservations) :])
                if not reservations:
                    self.ended = self.budget.refusal
                    self._look_up()  # what other processes have stored meanwhile is free
                    return
                wanted = {key: self.missing.pop(key) for key in reservations}
                lost = self._ask(wanted, reservations, bar)
                # a request that got no answer is left to the next run
                claims.release(key for key in mine if key not in self.known)
                # another process has asked these meanwhile: its labels are waited for
                self.missing.update({key: instance for key, instance in wanted.items() if key in lost and key not in self.known})

    def _fits(self, key: str) -> bool:
        """Whether the budget allows one request at all: nothing is loaded or trained otherwise."""
        reservations = self._reserve([key])
        for reservation in reservations.values():
            reservation.release()
        return bool(reservations)

    def _prepare(self) -> None:
        self.teacher.budget, self.teacher.store = self.budget, self.store
        self.teacher.prepare()
        asked, self.teacher.preparation = self.teacher.preparation, None  # on one bill only
        if asked:
            self._pay(asked.cost)

    def _reserve(self, keys: Sequence[str]) -> dict[str, Reservation]:
        """A reservation for each of ``keys`` up to the first that does not fit."""
        reservations: dict[str, Reservation] = {}
        for key in keys:
            most = bound_of(self.teacher, self.missing[key])
            reservation = self.budget.reserve(most.tokens, most.usd, labels=self.rows[key], key=key)
            if reservation is None:
                break
            reservations[key] = reservation
        return reservations

    def _ask(self, wanted: dict[str, Instance], reservations: dict[str, Reservation], bar: tqdm) -> set[str]:
        """Ask, store, settle. Gives back the keys that were not sent because another process has asked them meanwhile.

        Raises:
            AlkdError: what ended it, after all answers that were on their way are kept.
        """
        key_of = {instance.row: key for key, instance in wanted.items()}
        start = time.monotonic()
        lost: set[str] = set()

        def may_send(instance: Instance) -> bool:
            key = key_of[instance.row]
            if self.problem or self.unstorable or not self.claims.hold(key):
                lost.add(key)
                return False
            reservation = reservations.get(key)
            if reservation:
                reservation.begin()
            return True

        asked = list(wanted.values())
        if self.teacher.says_when_it_sends:
            self.teacher.before_sending = may_send
        elif not self.teacher.instant:
            asked = [instance for instance in asked if may_send(instance)]
        self.teacher.reservations = {row: reservations[key] for row, key in key_of.items()}
        groups = self.teacher.ask_in_groups(asked)
        try:
            with Interrupt(self.teacher.stop) as interrupt:
                for group in groups:
                    answered = [self._clean(key_of, instance, answer, reservations) for instance, answer in group]
                    try:
                        self._record(answered)
                    finally:
                        for key, instance, answer in answered:
                            self._settle(key, instance, answer, reservations.pop(key, None))
                            bar.update(self.rows[key])
                    if (self.problem or self.unstorable) and not interrupt.came:
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
            self.teacher.before_sending = None
            self.bill += Bill(cost=Cost(seconds=time.monotonic() - start))
        return lost

    def _raise_problem(self) -> None:
        if self.unstorable:
            words = [str(self.problem)] if self.problem else []
            words += [str(self.unstorable), *([self.side.told()] if self.side else [])]
            raise type(self.unstorable)("; ".join(words))
        if self.problem:
            raise self.problem

    def _clean(
        self, key_of: Mapping[int, str], instance: Instance, answer: Answer, reservations: Mapping[str, Reservation]
    ) -> tuple[str, Instance, Answer]:
        """The key, the instance, and the answer with numbers that can be counted: where they are none, the most is charged."""
        key = key_of.get(instance.row)
        if key is None:
            raise AlkdError(f"llm_teacher: {self.identity!r} answered session {instance.session!r}, which it was not asked about")
        counts = [read_count(answer.prompt_tokens), read_count(answer.completion_tokens)]
        usd, seconds = answer.usd if answer.usd is None else read_amount(answer.usd), read_amount(answer.seconds)
        bound = reservations[key].bound if key in reservations else None
        if None in counts:
            counts = [(bound.tokens or 0) if bound else 0, 0]
        if usd is None and answer.usd is not None:
            usd = bound.usd if bound else 0.0
        return (
            key,
            instance,
            dataclasses.replace(
                answer, prompt_tokens=counts[0] or 0, completion_tokens=counts[1] or 0, usd=usd, seconds=seconds or 0.0
            ),
        )

    def _record(self, answered: Sequence[tuple[str, Instance, Answer]]) -> None:
        """Put a group of answers into the store, or beside it, before anything else is done with it."""
        labels: list[Label] = []
        for key, instance, answer in answered:
            if answer.status == "unanswered":
                continue
            label = self._label(key, instance, answer)
            labels.append(label)
            if answer.status == "ok" and answer.ranking and label.status == "failed":
                self.problem = self.problem or AlkdError(
                    f"llm_teacher: {self.identity!r} answered session {instance.session!r} with a ranking that is not made of "
                    f"distinct candidates: {answer.ranking!r:.300}; it is kept as a failed label"
                )
        try:
            if self.unstorable:  # it was given up before: the user has waited long enough
                raise self.unstorable
            stored = self.store.put_many(labels)
        except BaseException as error:  # Ctrl-C among them
            if self.side:
                self.side.keep([*self.stored, *labels] if isinstance(error, StoreGoneError) else labels)
            if not isinstance(error, LabelStoreError):
                raise
            self.stored = [] if isinstance(error, StoreGoneError) else self.stored
            self.unstorable = error
            return
        self.stored += labels
        self.known.update({label.key: label for label in labels})
        if stored < len(labels):  # where another process was first, its label is everyone's
            self.known.update(self.store.get_many([label.key for label in labels]))

    def _label(self, key: str, instance: Instance, answer: Answer) -> Label:
        """The label of an answer. Whatever is wrong with it, a label comes of it: it is paid for."""
        common: dict[str, Any] = {
            "key": key,
            "candidates": instance.candidates,
            **vars(answer.cost),
            "teacher": self.identity,
            "time": time.time(),
        }
        raw = answer.raw if isinstance(answer.raw, str) else repr(answer.raw)
        raw = raw[:_LONGEST_RAW]
        usable = answer.status == "ok" and bool(answer.ranking)
        try:
            if usable and not _is_ranking(answer.ranking, instance, self.teacher.ranks_candidates_only):
                return Label(ranking=(), raw=raw, repairs={}, status="failed", **common)
            status = "ok" if usable else "failed"
            label = Label(ranking=answer.ranking if usable else (), raw=raw, repairs=answer.repairs, status=status, **common)
            to_row(label)
            return label
        except Exception as error:
            logger.warning("session %s: the answer cannot be stored as it is (%s): a failed label", instance.session, error)
            return Label(ranking=(), raw=raw or repr(answer)[:_LONGEST_RAW], repairs={}, status="failed", **common)

    def _settle(self, key: str, instance: Instance, answer: Answer, reservation: Reservation | None) -> None:
        rows = self.rows[key]
        ranked = key in self.known and self.known[key].status == "ok"
        cost = answer.cost
        if reservation:
            # an answer that was paid for counts, also where no ranking came of it
            reservation.settle(cost.tokens, cost.usd, labels=0 if cost.is_free and not ranked else rows)
            if reservation.overdrawn and self.budget.limited:
                self.problem = self.problem or AlkdError(
                    f"llm_teacher: {self.identity!r}, session {instance.session!r}: {reservation.overdrawn}: what it states as "
                    "the most must be an upper bound, or no budget holds; the answer is kept"
                )
        self._pay(cost)
        self.bill += Bill(asked=rows, repaired=rows if ranked and answer.repairs else 0)
        if isinstance(answer.repairs, Mapping):
            self.repairs.update(answer.repairs)

    def _pay(self, cost: Cost) -> None:
        """Tokens and dollars go on the bill, whose seconds are wall time."""
        self.bill += Bill(cost=dataclasses.replace(cost, seconds=0.0))

    def _labels(self) -> dict[int, Label]:
        pairs = ((i.row, self.known.get(key)) for i, key in zip(self.instances, self.keys, strict=True))
        return {row: label for row, label in pairs if label is not None and label.status == "ok"}

    def _result(self) -> Labelling:
        labels = self._labels()
        waiting = sum(self.rows[key] for key in self.missing)  # never asked: the budget ended first
        bill = dataclasses.replace(self.bill, failed=len(self.instances) - waiting - len(labels))
        if not self.teacher.instant:
            self._look_at_the_file()
        known = {i.row for i, key in zip(self.instances, self.keys, strict=True) if key in self.known}
        missing = tuple(row for row in self.all_rows if row not in known)
        if self.ended is None and len(self.all_rows) > len(self.instances):
            self.ended = f"budget_labels: only {len(self.instances)} of {len(self.all_rows)} instances fit what was left"
        _report(labels, bill, self.ended, missing)
        return Labelling(labels, bill, dict(self.repairs), self.ended, missing)

    def _look_at_the_file(self) -> None:
        """StoreGoneError where the store was deleted behind the last write; what this call stored is kept beside it."""
        try:
            self.store.check_place()
        except StoreGoneError as error:
            with SideFile(self.store.path) as side:
                side.keep(self.stored)
                raise StoreGoneError(f"{error}; {side.told()}") from None


def _is_ranking(ranking: Sequence[str], instance: Instance, candidates_only: bool) -> bool:
    items = set(ranking)
    return len(items) == len(ranking) and (not candidates_only or items <= set(instance.candidates))


def _report(labels: dict[int, Label], bill: Bill, ended: str | None, missing: Sequence[int]) -> None:
    cost = "no price" if bill.usd is None else f"{bill.usd:.4f} USD"
    logger.info(
        "labels: %d rankings (%d instances asked now, %d from the store), %d failed, %d repaired, %d tokens, %s, %.1f s",
        len(labels), bill.asked, bill.reused, bill.failed, bill.repaired,
        bill.prompt_tokens + bill.completion_tokens, cost, bill.seconds,
    )  # fmt: skip
    if ended:
        logger.warning("labelling ended before all was asked: %s; %d instances are without a label", ended, len(missing))
