"""How a causal LM scores candidates: by their titles or by index letters, with or without a LoRA adapter.

``title``: the score of a candidate is

    log p(title | prompt, titles of the session) - log p(title | prompt)

in nats, the pointwise mutual information of title and session; without the second term, which the LM without
its adapter gives, long and rare titles would lose to short and common ones.
Nothing depends on the order of the candidates.

``index``: candidates are listed with letters, and the score is the log-probability of the letter as the next
token, among the letters (as LlamaRec and FIRST do). Small models favour letters whatever stands beside them,
so the candidates are shown in several shuffled orders and the log-probabilities averaged.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.llm.adapters import without_adapter
from recbole_alkd.llm.likelihood import Tokens, TokenTree, build_tree
from recbole_alkd.llm.model_kind import positions
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.teacher.base import Instance
from recbole_alkd.teacher.local.scorer import Case, Scorer
from recbole_alkd.teacher.prompt import shown_order

LETTERS = string.ascii_uppercase + string.ascii_lowercase
ORDERS = 3  # in which candidates are shown for `index`
_NULL_CHUNK = 64  # titles in one forward pass without a session


class TitleScorer(Scorer):
    """PMI of title and session."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # fixed groups, so that a title's null does not depend, in the last bits, on what else a run asks for
        distinct = sorted(set(self._tokens.values()))
        self._chunks = [distinct[k : k + _NULL_CHUNK] for k in range(0, len(distinct), _NULL_CHUNK)]
        self._chunk_of = {title: k for k, chunk in enumerate(self._chunks) for title in chunk}
        self._null: dict[Tokens, float] = {}
        check_room(len(self._head) + self._longest_title, positions(self.model.config), self.settings)

    def _case(self, instance: Instance, history: int) -> Case:
        return replace(self._without_null(instance, history), null=self.null(instance.candidates))

    def _without_null(self, instance: Instance, history: int) -> Case:
        return Case(
            (build_tree(self._session(instance.history, history), self.title_tokens(instance.candidates)),)
        )

    def tokens(self, instance: Instance) -> int:
        return self._fitting(instance, partial(self._without_null, instance)).tokens

    def passes(self, items: Iterable[str]) -> int:
        return len(self._missing_chunks(self.title_tokens(items)))

    def _missing_chunks(self, titles: Iterable[Tokens]) -> list[int]:
        return sorted({self._chunk_of[title] for title in titles if title not in self._null})

    @property
    def temperature(self) -> float:
        """The PMI of a title is a sum over its tokens, and as log-odds far too sure of itself: its softmax is
        taken in nats per token of a title of full length, or the loss would be about little but the scale of
        the scores."""
        return float(self.settings.llm_title_tokens)

    def prepare(self, items: Iterable[str]) -> None:
        self.null(list(items))

    def null(self, items: Sequence[str]) -> Tensor:
        """(N,) log-likelihood of the items' titles without a session, by the LM without its adapter."""
        titles = self.title_tokens(items)
        for k in self._missing_chunks(titles):
            with torch.no_grad(), without_adapter(self.model):
                likelihoods = self._log_likelihoods([build_tree(self._head, self._chunks[k])])[0]
            self._null.update(zip(self._chunks[k], likelihoods.tolist(), strict=True))
        return torch.tensor([self._null[title] for title in titles])

    def _combine(self, parts: list[Tensor], case: Case) -> Tensor:
        assert case.null is not None
        return parts[0] - case.null.to(parts[0].device)


def check_room(wanted: int, room: int | None, settings: TeacherSettings) -> None:
    """AlkdError where not even a title without a session fits: ``wanted`` tokens of the ``room`` that the
    model reads."""
    if room is not None and wanted > room:
        raise AlkdError(
            f"llm_model: {settings.llm_model!r} reads {room} tokens, and the prompt's first line with one "
            f"title has {wanted}; "
            "lower llm_title_tokens, shorten the prompt's `title`, or take a model that reads more"
        )


def letter_tokens(tokenizer: Any, settings: TeacherSettings) -> tuple[Tokens, list[int]]:
    """What the tokenizer puts before a letter, and the token of each of the ``llm_candidates`` letters.

    Raises:
        AlkdError: more candidates than letters; a tokenizer without a token for each of them.
    """
    if settings.llm_candidates > len(LETTERS):
        raise AlkdError(
            f"llm_candidates: {settings.llm_candidates} is more than the {len(LETTERS)} letters of "
            "llm_scoring 'index'; "
            f"allowed: at most {len(LETTERS)}"
        )
    letters = LETTERS[: settings.llm_candidates]
    options = [tuple(tokenizer(f" {letter}", add_special_tokens=False)["input_ids"]) for letter in letters]
    if len({option[:-1] for option in options}) > 1 or len({option[-1:] for option in options}) < len(
        options
    ):
        raise AlkdError(
            "llm_scoring: 'index' needs a token for each letter, "
            f"which the tokenizer of {settings.llm_model} has not; "
            "allowed with this model: title | generate"
        )
    return options[0][:-1], [option[-1] for option in options]


class IndexScorer(Scorer):
    """Log-probability of the candidate's letter among the letters, averaged over shuffled orders."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # what a tokenizer puts before a letter (often nothing) ends the prompt
        self._before, self._letters = letter_tokens(self.tokenizer, self.settings)

    def _case(self, instance: Instance, history: int) -> Case:
        return Case(tuple(self._tree(instance, order, history) for order in range(ORDERS)))

    def _training_case(self, instance: Instance, epoch: int, history: int) -> Case:
        return Case((self._tree(instance, epoch, history),))

    def _tree(self, instance: Instance, order: int, history: int) -> TokenTree:
        shown = shown_order(instance, self.settings.llm_seed + order)
        lines = [self._encode(self.prompt["index.options"] + "\n")]
        for letter, title in zip(LETTERS, self.title_tokens(shown), strict=False):
            lines.append((*self._encode(f" {letter}:"), *title, *self._line_end))
        lines.append((*self._encode(self.prompt["index.ask"]), *self._before))
        letter_of = dict(zip(shown, self._letters, strict=False))
        prefix = [*self._session(instance.history, history), *(token for line in lines for token in line)]
        return build_tree(prefix, [(letter_of[item],) for item in instance.candidates])

    def _combine(self, parts: list[Tensor], case: Case) -> Tensor:
        return torch.stack([part.log_softmax(0) for part in parts]).mean(0)
