"""What asking an LLM took, or may take at most: one value for answers, labels, hints, bills,
bounds and estimates."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, replace

from recbole_alkd.settings.error import AlkdError

LARGEST = 2**63 - 1  # what SQLite's integers hold


@dataclass(frozen=True)
class Cost:
    """Tokens, seconds and US dollars.

    Attributes:
        prompt_tokens, completion_tokens: as counted by whoever was asked;
            a bound on both together stands in the first.
        seconds: from request to answer.
        usd: US dollars; None where nothing in it has a price (a local LLM, a control). A sum holds the prices
            that are known.

    Example:
        >>> Cost(100, 20, usd=0.5) + Cost(50, seconds=2.0)
        Cost(prompt_tokens=150, completion_tokens=20, seconds=2.0, usd=0.5)
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    usd: float | None = None

    @property
    def tokens(self) -> int:
        """Of prompt and completion together, which is what ``budget_tokens`` counts."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def is_free(self) -> bool:
        """Whether neither a token nor a cent is in it; time does not count."""
        return not self.tokens and not self.usd

    def __add__(self, other: Cost) -> Cost:
        known = [usd for usd in (self.usd, other.usd) if usd is not None]
        return Cost(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            sum(known) if known else None,
        )

    def at(self, share: float) -> Cost:
        """The same at a share of the price, such as that of a batch file."""
        return self if self.usd is None else replace(self, usd=self.usd * share)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of ``costs``, with floats added exactly."""
    every = list(costs)
    known = [cost.usd for cost in every if cost.usd is not None]
    return Cost(
        sum(cost.prompt_tokens for cost in every),
        sum(cost.completion_tokens for cost in every),
        math.fsum(cost.seconds for cost in every),
        math.fsum(known) if known else None,
    )


def money(usd: float | None) -> str:
    """US dollars in words. ``usd``: as in ``Cost``, 0 where nothing was asked.

    Example:
        >>> money(None), money(0), money(0.25)
        ('no USD price', 'nothing to pay', '0.2500 USD')
    """
    if usd == 0:
        return "nothing to pay"
    return "no USD price" if usd is None else f"{usd:.4f} USD"


def read_count(value: object) -> int | None:
    """A count that a server, a teacher or a file gives, or None where it is none:
    text, a fraction, negative, too large."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        count = int(value)
    elif math.isfinite(value) and float(value).is_integer():
        count = int(float(value))
    else:
        return None
    return count if 0 <= count <= LARGEST else None


def read_amount(value: object, most: float = math.inf) -> float | None:
    """Seconds or US dollars, or None where it is none: text, negative, endless, NaN, more than ``most``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        amount = float(value)
    except OverflowError:
        return None
    return amount if math.isfinite(amount) and 0 <= amount <= most else None


def read_cost(prompt_tokens: object, completion_tokens: object, seconds: object, usd: object) -> Cost:
    """A cost out of a file: what is no number counts as nothing, because the answer beside it is worth its
    price without."""
    return Cost(
        read_count(prompt_tokens) or 0,
        read_count(completion_tokens) or 0,
        read_amount(seconds) or 0.0,
        read_amount(usd),
    )


def read_bound(value: object, place: str) -> Cost:
    """What somebody else's code says that a request may take: a ``Cost``, or a pair (tokens,
    US dollars or None).

    Args:
        value: what it gave. A fraction of a token counts as a whole one.
        place: who gave it, for the error.

    Raises:
        AlkdError: it is neither, such as one number, which does not say whether it means tokens or US
            dollars.
    """
    pair: object = (value.tokens, value.usd) if isinstance(value, Cost) else value
    if isinstance(pair, tuple) and len(pair) == 2:
        tokens, usd = read_amount(pair[0], LARGEST), read_amount(pair[1])
        if tokens is not None and (usd is not None or pair[1] is None):
            whole = math.ceil(tokens)
            return value if isinstance(value, Cost) and whole == value.tokens else Cost(whole, usd=usd)
    raise AlkdError(
        f"{place}: {value!r:.100} does not say what a request may take; "
        "allowed: a Cost, or a pair (tokens, US dollars or None)"
    )
