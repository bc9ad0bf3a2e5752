"""Examples that train or judge a local LLM's adapter: what came next in the inside of training sessions.

A trained recommender finds its own training labels first, so the candidates of an example are of the
recommender that never saw its session (``Folds``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from recbole_alkd.labelling.candidates import cross_fitted_lists, insert_target, prefix_examples
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.teacher.base import LoraExample

logger = logging.getLogger(__name__)
_DRAWN = 10  # times as many are drawn, where the recommender must have found the target


Drawn = list[tuple[int, int]]  # (session, position) of examples


class ExampleRows(Protocol):
    """What examples need of training rows (``TrainingRows``), as they name it."""

    dataset: Any
    settings: Settings
    item_field: str
    uid_field: str
    tokens: np.ndarray


class LoraExamples:
    """The examples of one run. Making them trains the recommenders of ``folds``,
    where they are not trained yet.

    Attributes:
        shown: how many of a history's newest items an example has; None: all.
    """

    shown: ClassVar[int | None] = None

    def __init__(self, rows: ExampleRows, folds: Folds) -> None:
        self._rows, self._folds = rows, folds

    @cached_property
    def _sessions(self) -> list[np.ndarray]:
        """The items of every training session, the label last."""
        return [self._rows.dataset.session_items(session) for session in self._folds.sessions]

    def imitating(self, rankings: Mapping[str, Sequence[str]]) -> list[LoraExample]:
        """Examples for a local LLM that imitates recorded ``rankings`` (session -> items, best first).

        A session stands with all its items but the last. Its candidates are the recorded ones that this data
        set has and the session has not, at most ``llm_candidates``, then the best of the recommender that
        never saw the session.
        """
        seed, size = self._rows.dataset.config["seed"], self._rows.settings.teacher.llm_candidates
        token_id = self._rows.dataset.field2token_id[self._rows.item_field]
        names = self._rows.dataset.field2id_token[self._rows.uid_field]
        full = self._sessions
        wanted: dict[int, list[int]] = {}
        for place, session in enumerate(self._folds.sessions):
            listed = dict.fromkeys(
                token_id[item] for item in rankings.get(str(names[session]), ()) if item in token_id
            )
            seen = set(full[place][:-1].tolist())
            kept = [item for item in listed if item not in seen][:size]
            if kept:
                wanted[place] = kept
        rng = np.random.default_rng(stage_seed(seed, "replay examples"))
        chosen = [int(place) for place in rng.permutation(list(wanted))[: self._rows.settings.lora_examples]]
        examples = [(place, len(full[place]) - 1) for place in chosen]
        made = []
        for (place, end), row in zip(examples, self._lists(examples).tolist(), strict=True):
            candidates = list(dict.fromkeys([*wanted[place], *row]))[:size]
            ranking = tuple(self._rows.tokens[wanted[place]].tolist())
            natural = int(full[place][end]) in row
            history = tuple(self._rows.tokens[full[place][:end]].tolist())
            made.append(
                LoraExample(
                    history, tuple(self._rows.tokens[candidates].tolist()), ranking[0], natural, ranking
                )
            )
        return made

    def drawn(self) -> list[LoraExample]:
        """Examples for the local LLM: prefixes of training sessions, with lists from recommenders that never
        saw the session."""
        return self._chosen[1]

    def held_out(self) -> list[LoraExample]:
        """Examples that judge an adapter: no (history, target) of them is trained on, the recommender that
        never saw the session found the target itself, and they are of sessions that are not trained on,
        as far as there are such."""
        wanted = self._rows.settings.lora_held_out
        if not wanted:
            return []
        full = self._sessions
        trained = set(self._chosen[0])
        rng = np.random.default_rng(stage_seed(self._rows.dataset.config["seed"], "lora held out"))
        inside = sum(map(len, full))
        others = [
            e for e in prefix_examples(full, inside, rng, max_per_session=4, fewer=True) if e not in trained
        ]
        sessions = {session for session, _ in trained}
        others.sort(key=lambda example: example[0] in sessions)
        return self.natural(others[: _DRAWN * wanted], wanted)[1]

    @cached_property
    def _chosen(self) -> tuple[Drawn, list[LoraExample]]:
        """(session, position) of the LoRA examples, and the examples."""
        wanted, given = self._rows.settings.lora_examples, self._rows.settings.lora.lora_examples
        full = self._sessions
        rng = np.random.default_rng(stage_seed(self._rows.dataset.config["seed"], "lora examples"))
        most = max(4, -(-4 * wanted // len(full)))
        if not self._rows.settings.lora.only_natural:
            drawn = prefix_examples(full, wanted, rng, max_per_session=most, fewer=given is None)
            return drawn, self.of(drawn)
        every = prefix_examples(full, sum(map(len, full)), rng, max_per_session=_DRAWN * most, fewer=True)
        chosen, made = self.natural(every, wanted)
        if not made:
            logger.warning(
                "LoRA: the recommender found none of %s targets by itself, so they are inserted into the "
                "examples (lora_inserted)",
                f"{len(every):,}",
            )
            chosen = every[:wanted]
            made = self.of(chosen)
        elif len(made) < wanted:
            logger.warning(
                "LoRA: %d examples in place of %d: the recommender found no more targets by itself "
                "(lora_inserted: True takes others as well)",
                len(made),
                wanted,
            )
        return chosen, made

    def natural(self, drawn: Drawn, wanted: int) -> tuple[Drawn, list[LoraExample]]:
        """The first ``wanted`` of the examples ``drawn`` (session, position) whose target the recommender
        found itself.

        What is left is looked at in parts, so that no more lists are made than are needed.
        """
        kept: Drawn = []
        made: list[LoraExample] = []
        for start in range(0, len(drawn), size := max(1000, _DRAWN * wanted)):
            part = drawn[start : start + size]
            naturals = [(pair, one) for pair, one in zip(part, self.of(part), strict=True) if one.natural]
            kept += [pair for pair, _ in naturals]
            made += [one for _, one in naturals]
            if len(made) >= wanted:
                break
        return kept[:wanted], made[:wanted]

    def _lists(self, examples: Sequence[tuple[int, int]]) -> torch.Tensor:
        """(number of examples, llm_candidates) candidates, best first."""
        size, length = (
            self._rows.settings.teacher.llm_candidates,
            self._rows.dataset.config["MAX_ITEM_LIST_LENGTH"],
        )
        return cross_fitted_lists(
            self._sessions, examples, self._folds.fold_of_session, self._folds.views, size, length, self.shown
        )

    def of(self, examples: Sequence[tuple[int, int]]) -> list[LoraExample]:
        """The examples at (session, position)."""
        full = self._sessions
        targets = torch.as_tensor([int(full[s][p]) for s, p in examples])
        candidates, natural = insert_target(self._lists(examples), targets)
        return [
            LoraExample(
                history=tuple(self._rows.tokens[full[s][:p][-(self.shown or p) :]].tolist()),
                candidates=tuple(self._rows.tokens[candidates[i].numpy()].tolist()),
                target=str(self._rows.tokens[full[s][p]]),
                natural=bool(natural[i]),
            )
            for i, (s, p) in enumerate(examples)
        ]


class ItemExamples(LoraExamples):
    """Examples of ``alkd_unit: item``: an item of a training session, and the one that came next in it."""

    shown = 1
