"""Choosing how a neighbour table counts on validation sessions: what a setting gains,
and which one of a grid is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, product
from time import process_time
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.chance import paired_intervals
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.model.grid_tables import Counting, Tables
from recbole_alkd.model.shared_scores import SharedScores
from recbole_alkd.model.valid_sessions import Sessions

# A grid of at most so many settings is tried whole; on a larger one every setting is tried at the best of the
# others in turn.
WHOLE_GRID = 64
# Where validation sessions have so many edges at most, what all tables share of their scores is kept (half a
# gigabyte).
SHARED = 1 << 25
# Settings whose scores are summed side by side.
ALIKE = 6


Grid = Mapping[str, Sequence[float]]


def plain(grid: Grid) -> Counting:
    """Where the search starts, and what is taken without validation.

    No repeats, no direction and no gap, or what the grid has next to that; the middle one of each other list.
    """
    default = Counting()
    middle = {key: values[len(values) // 2] for key, values in grid.items()}
    for key in ("repeat", "backward", "gap_decay"):
        middle[key] = min(grid[key], key=lambda value: abs(value - getattr(default, key)))
    return Counting(**middle)


@dataclass(frozen=True)
class Choice:
    """What validation chose.

    Attributes:
        how: the setting; table: its whole table. counts: (n_items,) in how many training sessions each item
            is.
        valid: the mean gain on the validation sessions; nan where nothing was chosen.
        targets: how many targets chose (``Sessions.with_earlier``). tried: how many settings.
            seconds: CPU time of it all.
        over_plain: what it gains a target over the setting ``plain``, and the interval of that over sessions:
            (mean, low, high).
        over_next: the same over the best of the other settings.
    """

    how: Counting
    table: csr_array
    counts: np.ndarray
    valid: float = math.nan
    targets: int = 0
    tried: int = 0
    seconds: float = 0.0
    over_plain: tuple[float, float, float] = (math.nan,) * 3
    over_next: tuple[float, float, float] = (math.nan,) * 3

    def facts(self) -> dict[str, float]:
        """``valid``, ``targets``, ``tried``, ``seconds`` and the differences, as plain numbers."""
        facts = {"valid": self.valid, "targets": self.targets, "tried": self.tried, "seconds": self.seconds}
        return facts | differences(self.over_plain, self.over_next)


def differences(
    over_plain: tuple[float, float, float], over_next: tuple[float, float, float]
) -> dict[str, float]:
    """What the best setting gains over two others, each (mean, low, high), as plain numbers."""
    facts: dict[str, float] = {}
    for key, over in (("over_plain", over_plain), ("over_next", over_next)):
        facts |= zip((key, f"{key}_low", f"{key}_high"), over, strict=True)
    return facts


# What a training part gave, so that the stages of a run and the item-kNN row beside them count it once.
_fitted: WeakKeyDictionary[Any, dict[Any, Choice]] = WeakKeyDictionary()


def fit_counts(train: Any, valid: Any, grid: Grid, last_items: int, masked: bool) -> Choice:
    """Count the sessions of a training part, and choose from the grid what gains most on the validation
    sessions.

    Args:
        train, valid: parts of a RecBole sequential data set.
            Without ``valid`` the setting ``plain`` is taken.
        grid: the values of every field of ``Counting``. Where session items are ``masked`` no repeats are
            counted.
        last_items: how many of a session's newest items count.
    """
    grid = {key: tuple(values) for key, values in grid.items()} | ({"repeat": (0.0,)} if masked else {})
    metric = None if valid is None else str(valid.config["valid_metric"])
    key = (None if valid is None else ref(valid), tuple(sorted(grid.items())), last_items, masked, metric)
    known = _fitted.setdefault(train, {})
    if key not in known:
        known[key] = _fit(train, None if valid is None else Sessions.of(valid, last_items, masked), grid)
    return known[key]


def _fit(train: Any, valid: Sessions | None, grid: Grid) -> Choice:
    begin = process_time()
    start = plain(grid)
    tables = Tables(*training_sessions(train), train.item_num, list(dict.fromkeys(grid["gap_decay"])))
    if valid is None or not len(valid.target) or math.prod(map(len, grid.values())) == 1:
        return Choice(start, tables(start), tables.counts)
    rows = valid.with_earlier()
    moving = rows.undecided(tables.widest(), tables.counts)
    some = rows.only(moving)

    sizes = (some.item_seq, some.length, some.last_items)
    shared = None
    if SharedScores.entries(tables, *sizes) <= SHARED:
        shared = SharedScores(tables, some.item_seq, some.length, some.target, some.last_items, some.masked)

    valid_gains: dict[Counting, float] = {}

    def worth_of(hows: Sequence[Counting]) -> list[np.ndarray]:
        """What each row gains under settings that go together (``_alike``)."""
        if shared is None:
            worth = [some.gains(tables(how), tables.counts, how.decay) for how in hows]
        else:
            weighed = dict.fromkeys(how._replace(decay=0) for how in hows)
            decays = list(dict.fromkeys(how.decay for how in hows))
            ranks = shared.ranks([tables.weights(how) for how in weighed], decays, some.cutoff)
            worth = [some.worth(one) for one in ranks]
        gains = np.zeros((len(hows), len(moving)))
        gains[:, moving] = worth
        # the rows of the last items come first
        last = (float(one[: len(valid.target)].mean()) for one in gains)
        valid_gains.update(zip(hows, last, strict=True))
        return list(gains)

    def gains_of(hows: Sequence[Counting]) -> list[np.ndarray]:
        return [rows.by_session(gains) for alike in _alike(hows) for gains in worth_of(alike)]

    settled = settle(grid, start, gains_of)
    how = settled.how
    table = tables(how)
    seconds = process_time() - begin
    return Choice(
        how,
        table,
        tables.counts,
        valid_gains[how],
        len(rows.target),
        settled.tried,
        seconds,
        settled.over_plain,
        settled.over_next,
    )


def _alike(hows: Sequence[Counting]) -> Iterator[list[Counting]]:
    """The settings in their order: those with the same decay together, or those that differ in nothing else,
    ``ALIKE`` at most."""
    one_table = len({how._replace(decay=0) for how in hows}) == 1
    for _, group in groupby(hows, lambda how: None if one_table else how.decay):
        while some := list(islice(group, ALIKE)):
            yield some


How = TypeVar("How", bound=Any)  # a NamedTuple: one value of every setting of a grid
# What each of some settings gains a session, (sessions,)
GainsOf = Callable[[Sequence[How]], Sequence[np.ndarray]]


def search(grid: Grid, start: How, gains_of: GainsOf[How]) -> dict[How, np.ndarray]:
    """Settings that were tried, and what each gains a session.

    A grid of at most ``WHOLE_GRID`` settings is tried whole. On a larger one all values of one setting after
    the other are tried beside the best of the rest, until none gives more.
    """
    if math.prod(map(len, grid.values())) <= WHOLE_GRID:
        every = [type(start)(*values) for values in product(*(grid[key] for key in start._fields))]
        return dict(zip(every, gains_of(every), strict=True))
    best, before = start, None
    tried = {best: gains_of([best])[0]}
    while best != before:
        before = best
        for key in start._fields:
            hows = (best._replace(**{key: value}) for value in grid[key])
            new = [how for how in dict.fromkeys(hows) if how not in tried]
            if new:
                tried |= zip(new, gains_of(new), strict=True)
            best = max(tried, key=lambda one: tried[one].mean())
    return tried


@dataclass(frozen=True)
class Settled(Generic[How]):
    """The setting of a grid that gains most; ``tried``, ``over_plain`` and ``over_next`` as ``Choice`` has
    them."""

    how: How
    tried: int
    over_plain: tuple[float, float, float]
    over_next: tuple[float, float, float]


def settle(grid: Grid, start: How, gains_of: GainsOf[How]) -> Settled[How]:
    """``search``, and what the best setting gains over ``start`` and over the best of the others."""
    tried = search(grid, start, gains_of)
    how = max(tried, key=lambda one: tried[one].mean())
    others = [one for one in tried if one != how]
    rivals = [start, max(others, key=lambda one: tried[one].mean()) if others else how]
    differences = np.stack([tried[how] - tried[one] for one in rivals], axis=1)
    low, high = paired_intervals(differences)
    over = [(float(differences[:, k].mean()), float(low[k]), float(high[k])) for k in range(2)]
    return Settled(how, len(tried), over[0], over[1])


def edge_choice(
    variants: int, weights: Sequence[float], ranks_of: Callable[[int, float], np.ndarray], sessions: Sessions
) -> tuple[int, float]:
    """Which of several sets of edges is added at which weight: what validation prefers.

    A weight is preferred to 0 only where it gains more than chance, and where the places behind the cutoff do
    not lose: edges that say nothing put items at random where a table has none,
    which can only gain within the first few.

    Args:
        variants: how many sets there are. weights: what each may weigh.
        ranks_of: (variant, weight) -> ranks of the targets of ``sessions``.
    """
    choices = sorted(weights)
    tried = [(variant, weight) for variant in range(variants) for weight in choices if weight or not variant]
    ranks = [ranks_of(*one) for one in tried]
    gains = [sessions.worth(rank) for rank in ranks]
    best = int(np.argmax([gain.mean() for gain in gains]))
    if choices[0] == 0 and best:
        low, _ = paired_intervals(sessions.by_session(gains[best] - gains[0])[:, None])
        behind = (
            sessions.worth(ranks[best], everywhere=True).mean()
            - sessions.worth(ranks[0], everywhere=True).mean()
        )
        best = best if low > 0 and behind >= 0 else 0
    return tried[best]


def choice_words(chosen: Mapping[str, float], start: str) -> str:
    """What validation chose from, what that took, and what it is worth; a bracket is left open.

    Args:
        chosen: has what ``Choice.facts`` gives. start: what the setting is called where the search began.
    """
    words = (
        f"chosen on validation from {chosen['tried']:,} settings in {chosen['seconds']:.1f} CPU s "
        f"({chosen['valid']:.4f}"
    )
    for key, other in (("over_plain", start), ("over_next", "the next best")):
        low, high = chosen[f"{key}_low"], chosen[f"{key}_high"]
        words += f", {chosen[key]:+.4f} [{low:+.4f}, {high:+.4f}] against {other}"
    return words
