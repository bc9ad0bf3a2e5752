"""What labels took: how many were asked for, what became of them, and the cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from recbole_alkd.labels.budget import Reservation
from recbole_alkd.labels.cost import Cost, read_amount, read_count
from recbole_alkd.teacher.base import Answer


@dataclass(frozen=True)
class Bill:
    """The bill of one asking; ``+`` gives that of two rounds.

    Attributes:
        asked: instances the teacher was asked about in this run.
        reused: rankings that came from the store.
        failed: instances without a ranking: unusable answers (of this run or an earlier one), requests that
            never got an answer.
        repaired: rankings of this run that the parser had to repair.
        cost: tokens and US dollars of the answers of this run, the hints among them; its seconds are the wall
            time of the asking, without what comes before it.
    """

    asked: int = 0
    reused: int = 0
    failed: int = 0
    repaired: int = 0
    cost: Cost = field(default_factory=Cost)

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            self.asked + other.asked,
            self.reused + other.reused,
            self.failed + other.failed,
            self.repaired + other.repaired,
            self.cost + other.cost,
        )

    @property
    def usd(self) -> float | None:
        """US dollars; 0 where nothing was asked, None when answers came and none of them has a price."""
        return 0 if self.cost.usd is None and not self.asked else self.cost.usd

    @property
    def prompt_tokens(self) -> int:
        """Of the answers of this run."""
        return self.cost.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Of the answers of this run."""
        return self.cost.completion_tokens

    @property
    def seconds(self) -> float:
        """Wall time of the asking."""
        return self.cost.seconds

    def report(self) -> dict[str, Any]:
        """The same as plain numbers by name, as reports have it."""
        counts = {name: value for name, value in vars(self).items() if name != "cost"}
        return {**counts, **dataclasses.asdict(self.cost), "usd": self.usd}


def counted(answer: Answer, reservation: Reservation | None) -> Answer:
    """``answer`` with numbers that can be counted: where they are none, the most is charged."""
    counts = [read_count(answer.prompt_tokens), read_count(answer.completion_tokens)]
    usd, seconds = answer.usd if answer.usd is None else read_amount(answer.usd), read_amount(answer.seconds)
    bound = reservation.bound if reservation else None
    if None in counts:
        counts = [(bound.tokens or 0) if bound else 0, 0]
    if usd is None and answer.usd is not None:
        usd = bound.usd if bound else 0.0
    cost = Cost(counts[0] or 0, counts[1] or 0, seconds or 0.0, usd)
    return dataclasses.replace(answer, **vars(cost))
