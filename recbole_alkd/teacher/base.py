"""The base of all LLM teachers: what a teacher says of itself, what it may take, and how it is asked.

More than 300 lines: it is one class, most of it the contract that a teacher of one's own is written from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from recbole_alkd.labels.budget import Budget, Reservation
from recbole_alkd.labels.cost import Cost, read_bound
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.teacher.prompt import shown_order
from recbole_alkd.teacher.records import (
    Answer,
    Asking,
    Instance,
    ItemInstance,
    LoraExample,
    Materials,
    Measured,
    TeacherContext,
)

__all__ = [
    "Answer",
    "Asking",
    "Instance",
    "ItemInstance",
    "LLMTeacher",
    "LoraExample",
    "Materials",
    "Measured",
    "TeacherContext",
    "bound_of",
    "check_teacher",
    "expected_of",
    "most_of",
]


def check_teacher(teacher: type[LLMTeacher]) -> None:
    """AlkdError for a teacher that does not say what a request may take."""
    if teacher.instant or _bounding_method(teacher):
        return
    raise AlkdError(
        f"llm_teacher: {_name(teacher)} does not say what a request may take, and no budget would hold; "
        "needed: a method "
        "bound(instance) that gives the most as a Cost, or a method estimate(instance) that gives it as "
        "(tokens, USD or "
        "None), or instant = True where answers cost nothing"
    )


def bound_of(teacher: LLMTeacher, instance: Instance) -> Cost:
    """The most that one request about ``instance`` may take, by the teacher's ``bound`` or ``estimate``.

    Raises:
        AlkdError: the teacher does not say, or says something else than an amount.
    """
    method = _bounding_method(type(teacher))
    if not method:
        check_teacher(type(teacher))
        return Cost()
    value = getattr(teacher, method)(instance)
    return read_bound(value, f"llm_teacher: {_name(type(teacher))}.{method}")


def most_of(teacher: LLMTeacher, instance: Instance) -> Cost:
    """``LLMTeacher.most`` as a cost."""
    return read_bound(teacher.most(instance), f"llm_teacher: {_name(type(teacher))}.most")


def expected_of(teacher: LLMTeacher, instance: Instance) -> Cost:
    """``LLMTeacher.expect`` as a cost."""
    return read_bound(teacher.expect(instance), f"llm_teacher: {_name(type(teacher))}.expect")


def _bounding_method(teacher: type[LLMTeacher]) -> str:
    """The method that the teacher's own class, or the nearest one above it, states bounds by; "" for none."""
    for kind in teacher.__mro__:
        if kind is LLMTeacher:
            break
        stated = next((method for method in ("bound", "estimate") if method in vars(kind)), "")
        if stated:
            return stated
    return ""


def _name(teacher: type) -> str:
    return f"{teacher.__module__}.{teacher.__qualname__}"


class LLMTeacher:
    """Base of all teachers. A subclass is registered under its ``llm_teacher`` name.

    The order of calls: ``identity`` and ``prompt`` for the label keys; then, only when a label is missing
    from the store, ``needs`` and ``prepare_with`` once, and ``answers``; ``close`` at the end, always. A
    teacher of your own defines ``identity``, ``prompt``, ``bound`` and ``ask``,
    and ``prepare`` where it has something to load.

    Attributes:
        needs_titles: whether items without titles are an error.
        ranks_candidates_only: whether an answer with other items is an error;
            False for recorded answers alone.
        takes_recommender_order: whether ``ask`` gets candidates in the teacher recommender's order, in which
            an inserted true next item stands last. False: they come shuffled by ``llm_seed`` and the session,
            so that ties give nothing away. True is for controls that rank by that order,
            and for teachers that shuffle by themselves.
        instant: whether answers take no time and cost nothing, so that they are stored together. Every other
            teacher must define ``bound``.
        says_when_it_sends: whether leave is asked for (``may_send``) just before each request. Of a teacher
            that does not, all instances that are handed over together count as sent at once, and where the
            run is killed they are counted as paid for.
        asks_llm: whether answers know more than the recommenders of the run, as those of an LLM or of titles
            do.
        chunk: how many instances are handed over (and reserved in the budget) at most.
        budget, store, reservations, before_sending, preparation: for teachers of earlier versions, set by
            ``prepare_with`` and ``answers``, which others define themselves.
            ``preparation``: what ``prepare`` asked of an LLM at a price.
    """

    needs_titles: ClassVar[bool] = True
    ranks_candidates_only: ClassVar[bool] = True
    takes_recommender_order: ClassVar[bool] = False
    instant: ClassVar[bool] = False
    asks_llm: ClassVar[bool] = True
    says_when_it_sends: ClassVar[bool] = False
    chunk: int = 64
    budget: Budget | None = None
    store: LabelStore | None = None
    reservations: Mapping[int, Reservation] = MappingProxyType({})
    before_sending: Callable[[Instance], bool] | None = None
    preparation: Answer | None = None

    @property
    def bound_words(self) -> str:
        """How upper bounds are counted, in words; "" where there is nothing to say."""
        return ""

    @property
    def origin(self) -> str:
        """Where its labels come from, in words that follow their number in the bill, such as "ordered at
        random"; "" for those of an LLM, which are asked for.
        """
        return f"made by {self.context.settings.teacher.llm_teacher}" if self.instant else ""

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        """AlkdError where settings alone show that this teacher cannot work. Called before any training, also
        where nobody is asked."""

    @classmethod
    def check(cls, settings: Settings) -> None:
        """AlkdError where settings ask for what this machine has not: a device, a package, a key.
        Called before any training.

        Nothing is loaded or sent here. Not called where nobody is asked (``select``, ``label --dry-run``).
        """

    def __init__(self, context: TeacherContext) -> None:
        self.context = context

    @property
    def identity(self) -> str:
        """Teacher name, model, adapter and scoring settings: all that decides an answer besides
        the prompt."""
        raise NotImplementedError

    @property
    def open_identity(self) -> bool:
        """Whether ``identity`` is only known once ``prepare_with`` was called, as where an adapter is judged
        before it is used.

        Until then it is that of what is hoped for; labels that the store has under it are taken.
        """
        return False

    def can_label(self, sessions: Sequence[str]) -> list[bool]:
        """Which sessions this teacher has an answer for. All, unless the answers were recorded."""
        return [True] * len(sessions)

    def prompt(self, instance: Instance) -> str:
        """The text that decides the answer, as far as text does."""
        raise NotImplementedError

    def bound(self, instance: Instance) -> Cost:
        """The most that one request may take: tokens (prompt and completion) and USD (None: it has no price).

        It is reserved before the request leaves, so budgets rest on it: an answer that takes more ends the
        asking with an error. There is no default unless the teacher is ``instant``.
        """
        return bound_of(self, instance)

    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        """``bound`` as (tokens, USD). A teacher of your own may define this in place of ``bound``."""
        most = bound_of(self, instance)
        return most.tokens, most.usd

    def expect(self, instance: Instance) -> Cost | tuple[int, float | None]:
        """What one request will take, about: a cost, or (tokens, USD).
        The upper bound where nothing better is known."""
        return bound_of(self, instance)

    def most(self, instance: Instance) -> Cost | tuple[int, float | None]:
        """The same as ``bound``, with a second request for the same instance where the teacher may
        send one."""
        return bound_of(self, instance)

    def measure(self, instances: Sequence[Instance]) -> Measured | None:
        """What labels of ``instances`` will take, where trying a few of them costs nothing but a moment;
        None elsewhere.

        Nothing is stored. AlkdError: the LLM cannot be asked here.
        """
        return None

    def preparation_cost(self, store: LabelStore | None) -> Sequence[Cost | tuple[int, float | None]]:
        """What ``prepare`` would ask of an LLM at a price, hints left out:
        ``[expect, most]``, or [] for nothing."""
        return []

    # what comes before the first ranking

    def needs(self) -> frozenset[str]:
        """Which fields of ``Materials`` besides the hints must be made; asked when a label is missing."""
        return frozenset()

    @property
    def hint_key(self) -> str:
        """The key of the hints that stand in this teacher's prompts; "none" where it has none."""
        return "none"

    def hint_messages(self, cases: Sequence[Instance]) -> list[dict[str, str]]:
        """The chat that asks for hints, of ``cases``; only called where there is a ``hint_key``."""
        raise NotImplementedError

    def text_costs(self, messages: Sequence[Mapping[str, str]]) -> tuple[Cost, Cost]:
        """What an answer to ``messages`` will take, about and at most."""
        raise NotImplementedError

    def write(self, messages: Sequence[Mapping[str, str]], reservation: Reservation | None) -> Answer:
        """The LLM's answer to ``messages`` that are no ranking, such as those for hints, as ``raw``.

        Raises:
            AlkdError: there is none.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Load weights, train the adapter: what is only needed when the LLM is really asked."""

    def prepare_with(self, materials: Materials, budget: Budget, store: LabelStore) -> Cost:
        """``prepare`` with what was made for this teacher; gives back what it asked of an LLM at a price on
        its own account."""
        self.budget, self.store = budget, store
        self.prepare()
        asked, self.preparation = self.preparation, None  # on one bill only
        return asked.cost if asked else Cost()

    # asking

    def may_send(self, instance: Instance) -> bool:
        """To be called just before the request about ``instance`` leaves (see ``Asking.may_send``). In an
        event loop, call it in a thread.

        Raises:
            AlkdError: nothing more must be sent.
        """
        return self.before_sending is None or self.before_sending(instance)

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        """Answer every instance, in any order, each as soon as it is known."""
        raise NotImplementedError

    def ask_in_groups(self, instances: Sequence[Instance]) -> Iterator[list[tuple[Instance, Answer]]]:
        """``ask``, with the answers that are there at the same moment in one group:
        one write to the disk stores a group."""
        if self.instant:
            yield list(self.ask(instances))
        else:
            yield from ([pair] for pair in self.ask(instances))

    def answers(
        self, instances: Sequence[Instance], asking: Asking
    ) -> Iterator[list[tuple[Instance, Answer]]]:
        """What the engine calls: ``ask_in_groups`` with what ``asking`` lends, ended early by ``stop``."""
        self.before_sending, self.reservations = asking.may_send, asking.reservations
        try:
            if self.takes_recommender_order:
                yield from self.ask_in_groups(instances)
            else:
                seed = self.context.settings.teacher.llm_seed
                yield from self.ask_in_groups(
                    [replace(one, candidates=shown_order(one, seed)) for one in instances]
                )
        finally:
            self.before_sending = None

    def stop(self) -> bool:
        """Called when the user interrupts the asking: send nothing more.
        Whether answers that are on their way still come."""
        return False

    @property
    def lora_report(self) -> dict[str, Any] | None:
        """What ``lora.train_adapter`` says of the adapter, with ``adapter`` (its folder), ``used`` and
        ``reused``; None without LoRA."""
        return None

    def close(self) -> None:
        """Give memory and processes back."""
