"""What a neighbour table was made of, so that it can be made again with more sessions, and an edge can say
where it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.choosing import Counting
from recbole_alkd.model.counting import both_ways, with_repeats
from recbole_alkd.model.edges import Weighing, added, borrowed_edges, like
from recbole_alkd.model.neighbours import rows_of, served, weigh


@dataclass(frozen=True)
class EdgeSet:
    """Edges that were added to a table.

    Attributes:
        name: "text", or that of a loss. edges: (n_items, n_items) as they were made.
        together: the same before they were weighed with popularities; None where they were not weighed.
        weight: what they count, in the table's own scale; 0 for none at all.
        most: of borrowed edges, how many an item keeps; ``together`` then holds how like the items are. 0 for
            all others.
    """

    name: str
    edges: csr_array
    together: csr_array | None
    weight: float
    most: int = 0

    @classmethod
    def of(cls, name: str, edges: csr_array, weighing: Weighing, weight: float = 0.0) -> EdgeSet:
        """Edges, and the ``Weighing`` that says what they were made of (``Weighing.edges``)."""
        if len(weighing.borrowed) == 1 and not weighing.weighed:
            alike, most = weighing.borrowed[0]
            return cls(name, edges, alike, weight, most)
        together = weighing.weighed[0] if len(weighing.weighed) == 1 else None
        return cls(name, edges, together, weight)

    def again(self, table: csr_array, counts: np.ndarray, how: Counting) -> csr_array:
        """The edges as another ``table`` with other ``counts`` has them; as they are where they came from
        neither.
        """
        if self.together is None:
            return self.edges
        if self.most:
            return borrowed_edges(self.together, table, self.most)
        return weigh(self.together, counts, how.source_exponent, how.target_exponent)


@dataclass(frozen=True)
class Made:
    """How a table was made.

    Attributes:
        refined: whether its weights were refined by gradients after that. spread: the exponent by which items
            that many sessions hold keep more edges (``uses``); None: every item keeps equally many.
    """

    how: Counting
    sets: tuple[EdgeSet, ...] = ()
    refined: bool = False
    spread: float | None = None

    def served(
        self, table: csr_array, counts: np.ndarray, neighbors: int | None, size: int | None
    ) -> csr_array:
        """``neighbours.served``, spread as the table is."""
        return served(table, neighbors, size, uses(counts, self.spread))


def uses(counts: np.ndarray, spread: float | None) -> np.ndarray | None:
    """What an edge of each item is worth where a table is cut: (n_i + 1)^spread, (n_items,); None without a
    spread.
    """
    return None if spread is None else (counts + 1.0) ** spread


def steps(
    forward: csr_array, counts: np.ndarray, made: Made, neighbors: int | None, size: int | None
) -> list[csr_array]:
    """The whole table as it was counted, and after each set of edges was added to it.

    Args:
        forward: F (n_items, n_items). counts: (n_items,) in how many sessions each item is.
        made: the sets that were weighed are weighed anew, those that were borrowed are borrowed anew.
        neighbors, size: how the table is cut, as ``neighbours.cut`` has them; the scale of edges goes by it.
    """
    how = made.how
    both = both_ways(forward.astype(np.float32), how.backward)
    table = weigh(both, counts, how.source_exponent, how.target_exponent)
    tables = [with_repeats(table, how.repeat)]
    for one in made.sets:
        edges = one.again(tables[0], counts, how)
        cut = made.served(tables[-1], counts, neighbors, size)
        tables.append(added(tables[-1], like(edges, cut), one.weight))
    return tables


def shares(grown: list[csr_array], made: Made, table: csr_array) -> dict[str, np.ndarray]:
    """What of every edge of ``table`` came from a set of edges: name -> (E,) float32 in [0, 1];
    the rest was counted.

    Args:
        grown: what ``steps`` gave. table: the last of them, cut.
    """
    values = [at(one, table) for one in grown]
    shares = {}
    for one, before, after in zip(made.sets, values, values[1:], strict=False):
        if one.weight:
            part = after - before
            shares[one.name] = np.divide(part, values[-1], out=np.zeros_like(part), where=values[-1] > 0)
    return shares


def at(table: csr_array, places: csr_array) -> np.ndarray:
    """The values of one table where another has its edges, (E,) float32; 0 where it has none. Both have rows
    in order."""
    size = np.int64(table.shape[1])
    ours = rows_of(table) * size + table.indices
    wanted = rows_of(places) * size + places.indices
    if not len(ours):
        return np.zeros(len(wanted), dtype=np.float32)
    place = np.minimum(ours.searchsorted(wanted), len(ours) - 1)
    return np.where(ours[place] == wanted, table.data[place], 0).astype(np.float32)


def grown(table: csr_array, n_items: int) -> csr_array:
    """The same edges among more items."""
    start = np.concatenate([table.indptr, np.full(n_items + 1 - len(table.indptr), table.indptr[-1])])
    return csr_array((table.data, table.indices, start), shape=(n_items, n_items))
