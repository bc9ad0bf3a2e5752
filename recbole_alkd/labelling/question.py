"""What an LLM is asked, and what is particular to one kind of question;
the engine does the rest for all kinds.

Three kinds are there: rankings of sessions (``labelling.rankings``), answers about items
(``labelling.item_answers``) and hints (``labelling.hints``). Another one is a file with a ``Kind``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.side import SideFile
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher

K = TypeVar("K")  # what is stored of an answer: a label, hints


@dataclass(frozen=True)
class Question:
    """One thing that an LLM is asked: data alone, so that it can be sent to another process.

    Attributes:
        kind: "ranking", "item" or "hints"; see ``Kind``.
        key: under which what comes of it is stored, and by which it is found again.
        number: by which its answer is known among those that are asked together.
        labels: how many rankings it counts as in ``budget_labels``.
        instance: what is to be ranked; None where ``messages`` say it all.
        messages: the chat that is sent; () where the teacher makes it of the instance.
    """

    kind: str
    key: str
    number: int = 0
    labels: int = 0
    instance: Instance | None = None
    messages: tuple[Mapping[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What it is about, in words."""
        return f"{self.instance.noun} {self.instance.session!r}" if self.instance else f"the {self.kind}"


class Kind(ABC, Generic[K]):
    """One kind of question to one teacher: where its answers are kept, what it may take,
    how an answer is read.

    Attributes:
        name: of the kind, as ``Question.kind``. things: what the answers are called in the log.
    """

    name: ClassVar[str]
    things: ClassVar[str]

    def __init__(self, teacher: LLMTeacher) -> None:
        self.teacher = teacher
        self.identity = teacher.identity

    @abstractmethod
    def find(self, store: LabelStore, keys: Sequence[str]) -> dict[str, K]:
        """What the store has of ``keys``."""

    @abstractmethod
    def put(self, store: LabelStore, kept: Sequence[K]) -> int:
        """Store ``kept``, durably on return; how many were new. Whoever comes first with a key is kept."""

    @abstractmethod
    def keep_aside(self, side: SideFile, kept: Sequence[K]) -> None:
        """Write ``kept``, which the store cannot take, beside it."""

    @abstractmethod
    def bound(self, question: Question) -> Cost:
        """The most that a request about ``question`` may take."""

    @abstractmethod
    def read(self, question: Question, answer: Answer) -> K:
        """What is stored of an answer. Whatever is wrong with it, something comes of it: it is paid for."""

    @abstractmethod
    def key(self, kept: K) -> str:
        """The key of what is stored."""

    def claim(self, key: str) -> str:
        """The name under which a process claims ``key`` while it asks."""
        return key

    def is_usable(self, kept: K) -> bool:
        """Whether what is stored is of use; what is not stays paid for, and ``retry_failed`` asks for it
        again."""
        return True

    def problem(self, question: Question, answer: Answer, kept: K) -> str | None:
        """Why an answer shows that the teacher cannot be trusted, so that nothing more is asked;
        None where it does not."""
        return None
