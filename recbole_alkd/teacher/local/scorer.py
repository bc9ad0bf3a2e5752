"""What all ways of scoring by a causal LM share: a session as tokens that the model can read,
and answers from scores."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.llm.likelihood import Tokens, TokenTree, log_likelihoods
from recbole_alkd.llm.model_kind import check_tokens, positions
from recbole_alkd.llm.reading import read_once
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.teacher.base import Answer, Instance
from recbole_alkd.teacher.prompt import Prompt, shown_order, title_of, title_prefix

logger = logging.getLogger(__name__)


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
