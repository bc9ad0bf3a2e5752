"""What the rivals VSTAN and SLIST share: settings that validation chooses from a grid, and edges
beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import process_time
from typing import Any, ClassVar

import numpy as np

from recbole_alkd.model.choosing import How, Sessions, choice_words, differences, settle
from recbole_alkd.model.counted import Counted, CountedModel
from recbole_alkd.model.counting import session_counts, training_sessions
from recbole_alkd.model.edges import Edges, Weighing, variants_of
from recbole_alkd.model.knn_settings import as_list
from recbole_alkd.model.valid_sessions import TARGETS
from recbole_alkd.settings.field import Field


@dataclass(frozen=True)
class Chosen:
    """What validation chose: the setting, and plain numbers for the report ({} without a choice)."""

    how: Any
    facts: dict[str, float]


class Rival(CountedModel):
    """Base of models that are fitted by counting, with settings ``<prefix>_<name>`` that are a number or a
    list of numbers.

    Attributes:
        prefix: of its settings. kind: a NamedTuple with the names of those that validation chooses.
    """

    prefix: ClassVar[str]
    kind: ClassVar[type[Any]]
    own_settings: ClassVar[dict[str, Field]]

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.grid = {name: self._list(config, name) for name in self.kind._fields}
        self.edge_weights = self._list(config, "edge_weight")
        self.longest = int(config["MAX_ITEM_LIST_LENGTH"])

    def _list(self, config: Any, name: str) -> list[float]:
        key = f"{self.prefix}_{name}"
        return as_list(self.own_settings[key].checked(key, config[key]))

    def start(self) -> Any:
        """Where the search begins, and what is taken without validation: the defaults of ``kind``, or what
        the lists have next to them."""
        usual = self.kind()._asdict()
        return self.kind(
            **{name: min(self.grid[name], key=lambda one: abs(one - usual[name])) for name in usual}
        )

    def rows(self, valid: Any) -> Sessions | None:
        """The validation sessions that choose: ``TARGETS`` of them at most, with earlier items where there
        are fewer."""
        if valid is None or not len(valid.inter_feat):
            return None
        return Sessions.of(valid, self.longest, self.mask_session_items).at_most(TARGETS).with_earlier()

    def choose(self, rows: Sessions | None, ranks_of: Callable[[How], np.ndarray]) -> Chosen:
        """The setting under which the targets of ``rows`` gain most; ``ranks_of`` ranks them."""
        start, begin = self.start(), process_time()
        if rows is None or all(len(values) == 1 for values in self.grid.values()):
            return Chosen(start, {})
        gains: dict[Any, float] = {}

        def gains_of(hows: Sequence[Any]) -> list[np.ndarray]:
            worth = [rows.worth(ranks_of(how)) for how in hows]
            gains.update((how, float(gain.mean())) for how, gain in zip(hows, worth, strict=True))
            return [rows.by_session(gain) for gain in worth]

        settled = settle(self.grid, start, gains_of)
        facts = {"valid": gains[settled.how], "targets": len(rows.target), "tried": settled.tried}
        facts |= {"seconds": process_time() - begin} | differences(settled.over_plain, settled.over_next)
        return Chosen(settled.how, facts)

    def counted(self, train: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items of all training sessions, where each begins, and in how many sessions each item is."""
        flat, offsets = training_sessions(train)
        return flat, offsets, session_counts(flat, offsets, self.n_items)

    def edge_sets(self, edges: Edges | None, counts: np.ndarray) -> dict[str, list[Any]]:
        """The edges to learn, name -> the sets of which one is to be chosen; items of a session
        count alike."""
        weighing = Weighing(counts)
        edges_of = {}
        for name, makers in (edges or {}).items():
            edges_of[name] = [make(replace(weighing, weighed=[])) for make in variants_of(makers)]
        return edges_of

    def words(self, chosen: Chosen) -> list[str]:
        """What the log says of the choice."""
        words = [f"{name.replace('_', ' ')} {value:g}" for name, value in chosen.how._asdict().items()]
        if chosen.facts:
            words.append(choice_words(chosen.facts, "where the search began") + ")")
        return words

    def result(self, chosen: Chosen, weights: dict[str, float], more: str) -> Counted:
        """What ``count`` gives back."""
        facts = {**chosen.how._asdict(), **chosen.facts, **weights}
        learnt = [f"{name.replace('_', ' ')} {value:g}" for name, value in weights.items()]
        return Counted(facts, (*self.words(chosen), *learnt, more))
