"""What an LLM teacher is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from recbole_alkd.labels.budget import Budget, Reservation
from recbole_alkd.labels.cost import Cost, read_bound
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings


@dataclass(frozen=True)
class Instance:
    """One training row that may be labelled, in item tokens.

    ``history`` is oldest first. ``candidates`` stand in the order of the teacher recommender, best first; where the
    true next item was inserted, it has the last place. A teacher that shows candidates to an LLM in an order shuffles
    them first (``teacher.prompt.shown_order``), so that no position gives anything away.
    """

    row: int
    session: str
    history: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class LoraExample:
    """A training example of the local LLM: rank ``candidates`` (``target`` among them) after ``history``.

    ``natural`` tells whether the cross-fitted teacher recommender found the target itself or it was inserted. ``ranking``:
    a recorded ranking that is imitated instead, best first, all of it among the candidates; ``target`` is its first item.
    """

    history: tuple[str, ...]
    candidates: tuple[str, ...]
    target: str
    natural: bool
    ranking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A teacher's answer for one instance. ``ranking``: distinct candidate tokens, best first; empty when it failed.

    ``status`` is "ok", "failed" (an answer came and no ranking could be read from it) or "unanswered" (no answer came:
    nothing is stored, and the next run asks again).
    """

    ranking: tuple[str, ...]
    raw: str = ""
    repairs: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    usd: float | None = None
    status: str = "ok"

    @property
    def cost(self) -> Cost:
        """What it took."""
        return Cost(self.prompt_tokens, self.completion_tokens, self.seconds, self.usd)


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher may use.

    Attributes:
        settings: the run's settings.
        dataset: the data set's name; ``data_path``: the folder with its files.
        titles: item token -> cleaned title, for every item; empty when the data set has none and the teacher needs none.
        cache: a folder for adapters and the like, beside the label store.
        lora_examples: makes the LoRA examples when called (it trains the cross-fitted recommenders), or None.
        lora_held_out: makes the examples that judge an adapter, none of which it was trained on, or None.
        lora_key: a hash of everything that decides those examples, so that an adapter can be found without making them.
        show_progress: whether to draw progress bars.
        log_metric: called with (name, value, step) for TensorBoard and W&B.
        device: the recommender's device, e.g. "cpu" or "cuda".
        hint_cases: gives training sessions, with the teacher recommender's own top 20 as candidates, for the LLM to
            summarise into hints; None: there are no hints.
        hint_key: a hash of everything that decides those cases, as ``lora_key``.
        items: every item token of the data set; empty where nobody knows.
    """

    settings: Settings
    dataset: str
    data_path: Path
    titles: Mapping[str, str]
    cache: Path
    lora_examples: Callable[[], list[LoraExample]] | None = None
    lora_held_out: Callable[[], list[LoraExample]] | None = None
    lora_key: str = ""
    show_progress: bool = False
    log_metric: Callable[[str, float, int], None] | None = None
    device: str = "cpu"
    hint_cases: Callable[[], list[Instance]] | None = None
    hint_key: str = ""
    items: frozenset[str] = frozenset()


def check_teacher(teacher: type[LLMTeacher]) -> None:
    """AlkdError for a teacher that does not say what a request may take."""
    if teacher.instant or _bounding_method(teacher):
        return
    raise AlkdError(
        f"llm_teacher: {_name(teacher)} does not say what a request may take, and no budget would hold; needed: a method "
        "bound(instance) that gives the most as a Cost, or a method estimate(instance) that gives it as (tokens, USD or "
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


@dataclass(frozen=True)
class Measured:
    """What labels will take, found by asking about a few of them.

    Attributes:
        tokens: of all of them. seconds: of asking about them, on this machine.
        tried: sessions that were asked about. preparation_seconds: before the first one is asked.
        preparation: what that time is for, in words.
    """

    tokens: int
    seconds: float
    tried: int
    preparation_seconds: float = 0.0
    preparation: str = ""


class LLMTeacher:
    """Base of all teachers. A subclass is registered under its ``llm_teacher`` name.

    The order of calls: ``identity`` and ``prompt`` for the label keys; ``prepare`` once, and only when a label is
    missing from the store; then ``ask``; ``close`` at the end, always.

    Attributes:
        needs_titles: whether items without titles are an error.
        ranks_candidates_only: whether an answer with other items is an error; False for recorded answers alone.
        instant: whether answers take no time and cost nothing, so that they are stored together. Every other teacher must
            define ``bound``.
        says_when_it_sends: whether ``may_send`` is called just before each request. Of a teacher that does not, all
            instances that are handed to one ``ask`` count as sent at once, and where the run is killed they are counted as
            paid for.
        chunk: how many instances are handed to one ``ask`` (and reserved in the budget) at most.
        budget: set before ``prepare``; a teacher that asks for something besides rankings, such as hints, reserves it here.
        store: set before ``prepare``; where hints are kept.
        reservations: set before ``ask``: row -> what is reserved for its request. A teacher that sends a second request
            for an instance extends the reservation first.
        before_sending: set before ``ask``; what ``may_send`` asks.
        preparation: what ``prepare`` asked of an LLM at a price; its tokens and USD go on the bill. None: nothing.
    """

    needs_titles: ClassVar[bool] = True
    ranks_candidates_only: ClassVar[bool] = True
    instant: ClassVar[bool] = False
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

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        """AlkdError where settings alone show that this teacher cannot work. Called before any training, also where nobody is
        asked."""

    @classmethod
    def check(cls, settings: Settings) -> None:
        """AlkdError where settings ask for what this machine has not: a device, a package, a key. Called before any training.

        Nothing is loaded or sent here. Not called where nobody is asked (``select``, ``label --dry-run``).
        """

    def __init__(self, context: TeacherContext) -> None:
        self.context = context

    @property
    def identity(self) -> str:
        """Teacher name, model, adapter and scoring settings: all that decides an answer besides the prompt."""
        raise NotImplementedError

    def can_label(self, sessions: Sequence[str]) -> list[bool]:
        """Which sessions this teacher has an answer for. All, unless the answers were recorded."""
        return [True] * len(sessions)

    def prompt(self, instance: Instance) -> str:
        """The text that decides the answer, as far as text does."""
        raise NotImplementedError

    def bound(self, instance: Instance) -> Cost:
        """The most that one request may take: tokens (prompt and completion) and USD (None: it has no price).

        It is reserved before the request leaves, so budgets rest on it: an answer that takes more ends the asking with an
        error. There is no default unless the teacher is ``instant``.
        """
        return bound_of(self, instance)

    def estimate(self, instance: Instance) -> tuple[int, float | None]:
        """``bound`` as (tokens, USD). A teacher of your own may define this in place of ``bound``."""
        most = bound_of(self, instance)
        return most.tokens, most.usd

    def expect(self, instance: Instance) -> Cost | tuple[int, float | None]:
        """What one request will take, about: a cost, or (tokens, USD). The upper bound where nothing better is known."""
        return bound_of(self, instance)

    def most(self, instance: Instance) -> Cost | tuple[int, float | None]:
        """The same as ``bound``, with a second request for the same instance where the teacher may send one."""
        return bound_of(self, instance)

    def measure(self, instances: Sequence[Instance]) -> Measured | None:
        """What labels of ``instances`` will take, where trying a few of them costs nothing but a moment; None elsewhere.

        Nothing is stored. AlkdError: the LLM cannot be asked here.
        """
        return None

    def preparation_cost(self, store: LabelStore | None) -> Sequence[Cost | tuple[int, float | None]]:
        """What ``prepare`` would ask of an LLM at a price beyond what ``store`` has: ``[expect, most]``, or [] for nothing."""
        return []

    def prepare(self) -> None:
        """Load weights, train the adapter: what is only needed when the LLM is really asked."""

    def may_send(self, instance: Instance) -> bool:
        """To be called just before the request about ``instance`` leaves. False: it must not be sent, because another process
        has asked this question meanwhile; nothing is answered for it then. May wait for the disk: in an event loop, call it
        in a thread.

        Raises:
            AlkdError: nothing more must be sent.
        """
        return self.before_sending is None or self.before_sending(instance)

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        """Answer every instance, in any order, each as soon as it is known."""
        raise NotImplementedError

    def ask_in_groups(self, instances: Sequence[Instance]) -> Iterator[list[tuple[Instance, Answer]]]:
        """``ask``, with the answers that are there at the same moment in one group: one write to the disk stores a group."""
        if self.instant:
            yield list(self.ask(instances))
        else:
            yield from ([pair] for pair in self.ask(instances))

    def stop(self) -> bool:
        """Called when the user interrupts ``ask``: send nothing more. Whether answers that are on their way still come."""
        return False

    @property
    def lora_report(self) -> dict[str, Any] | None:
        """``{examples, steps, loss_first, loss_last, seconds, adapter, natural, inserted, ranks}``, or None without LoRA."""
        return None

    def close(self) -> None:
        """Give memory and processes back."""
