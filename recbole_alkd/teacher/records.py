"""What goes between a run and an LLM teacher: data alone, so that it can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from recbole_alkd.labels.budget import Reservation
from recbole_alkd.labels.cost import Cost
from recbole_alkd.settings.groups import Settings

LogMetric = Callable[[str, float, int], None]  # name, value, step


@dataclass(frozen=True)
class Instance:
    """One training row that may be labelled, in item tokens.

    ``history`` is oldest first. ``candidates`` stand in the order of the teacher recommender, best first;
    where the true next item was inserted, it has the last place. A teacher that shows candidates to an LLM in
    an order shuffles them first (``teacher.prompt.shown_order``), so that no position gives anything away.
    """

    kind: ClassVar[str] = "ranking"  # of the question about it (``labelling.question.Kind``)
    noun: ClassVar[str] = "session"  # what ``session`` names

    row: int
    session: str
    history: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class ItemInstance(Instance):
    """An item that may be labelled (``alkd_unit: item``): which of the candidates do people who chose it
    choose next?

    ``session`` is the item, and ``history`` holds it alone.
    """

    kind: ClassVar[str] = "item"
    noun: ClassVar[str] = "item"


@dataclass(frozen=True)
class LoraExample:
    """A training example of the local LLM: rank ``candidates`` (``target`` among them) after ``history``.

    ``natural`` tells whether the cross-fitted teacher recommender found the target itself or it was inserted.
    ``ranking``: a recorded ranking that is imitated instead, best first, all of it among the candidates;
    ``target`` is its first item.
    """

    history: tuple[str, ...]
    candidates: tuple[str, ...]
    target: str
    natural: bool
    ranking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A teacher's answer for one instance. ``ranking``: distinct candidate tokens, best first;
    empty when it failed.

    ``status`` is "ok", "failed" (an answer came and no ranking could be read from it) or "unanswered" (no
    answer came: nothing is stored, and the next run asks again).
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
    """What a teacher is made of.

    Attributes:
        settings: the run's settings.
        dataset: the data set's name; ``data_path``: the folder with its files.
        titles: item token -> cleaned title, for every item; empty when the data set has none and the teacher
            needs none.
        cache: a folder for adapters and the like, beside the label store.
        lora_key: a hash of everything that decides the LoRA examples, so that an adapter can be found without
            making them.
        show_progress: whether to draw progress bars.
        log_metric: called with (name, value, step) for TensorBoard and W&B;
            None: nobody looks, as in another process.
        device: the recommender's device, e.g. "cpu" or "cuda".
        hint_key: a hash of everything that decides the cases that hints are made of, as ``lora_key``;
            "": there are no hints.
        items: every item token of the data set; empty where nobody knows.
    """

    settings: Settings
    dataset: str
    data_path: Path
    titles: Mapping[str, str]
    cache: Path
    lora_key: str = ""
    show_progress: bool = False
    log_metric: LogMetric | None = None
    device: str = "cpu"
    hint_key: str = ""
    items: frozenset[str] = frozenset()
    # what earlier versions had here is in ``Materials``; a teacher that looks for it finds that there is none
    lora_examples: ClassVar[None] = None
    lora_held_out: ClassVar[None] = None
    hint_cases: ClassVar[None] = None


@dataclass(frozen=True)
class Materials:
    """What a run makes for a teacher before the first ranking,
    where the teacher needs it (``LLMTeacher.needs``).

    Attributes:
        hints: the LLM's own rules, one a line; None where nobody was asked for them.
        lora_examples: what an adapter is trained on; lora_held_out: examples that judge it, none of which it
            was trained on. None where they were not made.
    """

    hints: tuple[str, ...] | None = None
    lora_examples: tuple[LoraExample, ...] | None = None
    lora_held_out: tuple[LoraExample, ...] | None = None


NO_MATERIALS = Materials()


@dataclass(frozen=True)
class Asking:
    """What the engine lends a teacher with the instances it hands over.
    It stays in the process of the engine.

    Attributes:
        may_send: to be called just before the request about an instance leaves. False: it must not be sent,
            because another process has asked this question meanwhile; nothing is answered for it then. May
            wait for the disk. AlkdError: nothing more must be sent.
        reservations: row -> what is reserved for its request. A teacher that sends a second request for an
            instance extends the reservation first.
        has_answered: whether the label store has a ranking of this teacher.
    """

    may_send: Callable[[Instance], bool] = lambda instance: True
    reservations: Mapping[int, Reservation] = field(default_factory=lambda: MappingProxyType({}))
    has_answered: Callable[[], bool] = lambda: False


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
