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

import json
import logging
import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.llm.adapters import without_adapter
from recbole_alkd.llm.likelihood import Tokens, TokenTree, build_tree, log_likelihoods
from recbole_alkd.llm.model_kind import check_tokens, positions
from recbole_alkd.llm.reading import read_once
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.teacher.base import Answer, Instance
from recbole_alkd.teacher.prompt import Prompt, shown_order, title_of, title_prefix

logger = logging.getLogger(__name__)

LETTERS = string.ascii_uppercase + string.ascii_lowercase
ORDERS = 3  # in which candidates are shown for `index`
_NULL_CHUNK = 64  # titles in one forward pass without a session


@dataclass(frozen=True)
class Case:
    """What is forwarded for one session: one tree, or one for each order of the candidates,
    and what is subtracted."""

    trees: tuple[TokenTree, ...]
    null: Tensor | None = None
    problem: str = ""  # why it cannot be asked: it is longer than what the model reads

    @property
    def tokens(self) -> int:
        return sum(len(tree.tokens) for tree in self.trees)

    @property
    def depth(self) -> int:
        """Positions that the longest text takes, its last token left out, which is never forwarded."""
        return max(int(tree.depths.max()) + 1 for tree in self.trees)


class Scorer:
    """Base of the scorers.

    Args:
        model, tokenizer: as ``load_causal_lm`` gives them; ``model`` may be set to a PEFT model around it
            later.
        titles: item token -> title, of all items.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: Prompt, titles: Mapping[str, str], settings: TeacherSettings
    ) -> None:
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.titles, self.settings = titles, settings
        self._line_end = self._encode("a\n")[len(self._encode("a")) :]
        texts = sorted(set(titles.values()))
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        self._tokens = {
            text: tuple(tokens[: settings.llm_title_tokens]) for text, tokens in zip(texts, ids, strict=True)
        }
        rows, longest = model.get_input_embeddings().weight.shape[0], max(ids, key=len, default=())
        check_tokens(tokenizer, {token for tokens in ids for token in tokens}, rows, settings.llm_model)
        self._longest_title = min(len(longest), settings.llm_title_tokens)
        self._head = self._encode(title_prefix(prompt, []), start=True)
        self._told: set[str] = set()
        self.reading = read_once(model)
        if not self.reading.causal:
            raise AlkdError(
                f"llm_model: {settings.llm_model!r} ({type(model).__name__}) sees the tokens that come "
                "after; allowed: a causal LM"
            )

    @property
    def temperature(self) -> float:
        """What scores are divided by in the softmax of the LoRA loss. It leaves rankings as they are."""
        return 1.0

    def prepare(self, items: Iterable[str]) -> None:
        """Compute what does not depend on sessions for ``items``, before cases are made of them."""

    def passes(self, items: Iterable[str]) -> int:
        """How many forward passes ``prepare`` would take."""
        return 0

    def tokens(self, instance: Instance) -> int:
        """How many tokens the LM reads for ``instance``."""
        return self.case(instance).tokens

    def case(self, instance: Instance) -> Case:
        """What is asked for ``instance``."""
        return self._fitting(instance, partial(self._case, instance))

    def training_case(self, instance: Instance, epoch: int) -> Case:
        """The same for a training example, in one pass."""
        return self._fitting(instance, partial(self._training_case, instance, epoch))

    def judging_case(self, instance: Instance) -> Case:
        """What is scored to judge an adapter: the same as for a label, unless labels are written."""
        return self.case(instance)

    def _case(self, instance: Instance, history: int) -> Case:
        """What is asked when the last ``history`` items of the session are shown."""
        raise NotImplementedError

    def _training_case(self, instance: Instance, epoch: int, history: int) -> Case:
        return self._case(instance, history)

    def _fitting(self, instance: Instance, make: Callable[[int], Case], answer: int = 0) -> Case:
        """The case with as much of the history as the model can read beside an answer of
        ``answer`` tokens."""
        room = positions(self.model.config)
        most = max(1, min(len(instance.history), self.settings.llm_history))
        for history in range(most, 0, -1):
            case = make(history)
            if (
                room is None
                or max(len(tree.tokens) for tree in case.trees) + answer <= room
                or case.depth + answer <= room
            ):
                if history < most:
                    self._tell("cut", "%s reads %d tokens: sessions are cut to the last items that fit", room)
                return case
        self._tell(
            "failed",
            "%s reads %d tokens, too few for some sessions: their labels fail; lower llm_candidates",
            room,
        )
        return replace(
            case, problem=f"{case.depth + answer} tokens are more than the {room} that the model reads"
        )

    def _tell(self, what: str, words: str, room: int | None) -> None:
        """Once."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(words, self.settings.llm_model, room)

    def answers(self, instances: Sequence[Instance], cases: Sequence[Case]) -> list[Answer]:
        """An answer for every case, in one batch; a failed one where the case is too long for the model."""
        fit = [(instance, case) for instance, case in zip(instances, cases, strict=True) if not case.problem]
        made = iter(self._answers([i for i, _ in fit], [case for _, case in fit]) if fit else ())
        return [
            Answer((), raw=case.problem, status="failed") if case.problem else next(made) for case in cases
        ]

    def _answers(self, instances: Sequence[Instance], cases: Sequence[Case]) -> list[Answer]:
        """``raw`` is JSON, the score of every candidate."""
        with torch.inference_mode():
            case_scores = [scores.tolist() for scores in self.scores(cases)]
        return [self._answer(*one) for one in zip(instances, cases, case_scores, strict=True)]

    def _answer(self, instance: Instance, case: Case, scores: list[float]) -> Answer:
        score_of = dict(zip(instance.candidates, scores, strict=True))
        raw = json.dumps({item: round(score, 4) for item, score in score_of.items()})
        if any(math.isnan(score) for score in scores):  # as half precision can give
            return Answer((), raw=raw, prompt_tokens=case.tokens, status="failed")
        # items with the same title have the same score; the order of the candidates must not decide between
        # them
        place = {item: k for k, item in enumerate(shown_order(instance, self.settings.llm_seed))}
        ranking = sorted(instance.candidates, key=lambda item: (-score_of[item], place[item]))
        return Answer(tuple(ranking[: self.settings.llm_top_n]), raw=raw, prompt_tokens=case.tokens)

    def scores(self, cases: Sequence[Case]) -> list[Tensor]:
        """(N,) score of every candidate of every case, in nats; with gradients if they are enabled."""
        likelihoods = iter(self._log_likelihoods([tree for case in cases for tree in case.trees]))
        return [self._combine([next(likelihoods) for _ in case.trees], case) for case in cases]

    def _log_likelihoods(self, trees: Sequence[TokenTree]) -> list[Tensor]:
        deepest = max(int(tree.depths.max()) + 1 for tree in trees)
        return log_likelihoods(self.model, trees, self.reading.in_one_pass(deepest))

    def _combine(self, parts: list[Tensor], case: Case) -> Tensor:
        raise NotImplementedError

    def title_tokens(self, items: Iterable[str]) -> list[Tokens]:
        """The first ``llm_title_tokens`` tokens of the items' titles."""
        return [self._tokens[title_of(item, self.titles)] for item in items]

    def _session(self, history: Sequence[str], shown: int) -> list[int]:
        """Tokens of the prompt's first line and of the last ``shown`` titles, one a line."""
        lines = self.title_tokens(history[-shown:])
        return [*self._head, *(token for line in lines for token in (*line, *self._line_end))]

    def _encode(self, text: str, start: bool = False) -> Tokens:
        ids = self.tokenizer(text, add_special_tokens=start)["input_ids"]
        if start and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return tuple(ids)


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
