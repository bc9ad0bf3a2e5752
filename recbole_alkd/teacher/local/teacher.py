"""`local`: a causal LM on this machine ranks the candidates, after LoRA if asked for.

``llm_scoring`` says how: ``title`` and ``index`` compare likelihoods (see ``scorers``),
``generate`` lets the LM write.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from recbole_alkd.labels.budget import Budget, Reservation
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.llm.devices import threads
from recbole_alkd.llm.models import load_causal_lm, model_identity
from recbole_alkd.registry import teachers
from recbole_alkd.settings.groups import Settings, TeacherSettings
from recbole_alkd.teacher import hints
from recbole_alkd.teacher.base import LLMTeacher
from recbole_alkd.teacher.local.generate import HINT_TOKENS, GenerateScorer
from recbole_alkd.teacher.local.local_check import check_local, unless_labelled
from recbole_alkd.teacher.local.lora import kept_random_state
from recbole_alkd.teacher.local.measuring import measure_local
from recbole_alkd.teacher.local.own_adapter import OwnAdapter
from recbole_alkd.teacher.local.scorer import Scorer
from recbole_alkd.teacher.local.scorers import ORDERS, IndexScorer, TitleScorer
from recbole_alkd.teacher.prompt import (
    load_prompt,
    ranking_request,
    session_titles,
    shown_order,
    title_of,
    title_prefix,
)
from recbole_alkd.teacher.records import (
    NO_MATERIALS,
    Answer,
    Asking,
    Instance,
    Materials,
    Measured,
    TeacherContext,
)

logger = logging.getLogger(__name__)
SCORERS: dict[str, type[Scorer]] = {"title": TitleScorer, "index": IndexScorer, "generate": GenerateScorer}
_TEMPLATE = 64  # tokens that a chat template may add
# what of a prompt file decides the answers, apart from the hints
_TEXTS = {
    "title": ("title",),
    "index": ("title", "index.options", "index.ask"),
    "generate": ("generate.system", "generate.user"),
}


@teachers.register("local")
class LocalTeacher(LLMTeacher):
    """A causal LM of this machine, with a LoRA adapter unless ``lora: False``."""

    says_when_it_sends = True
    takes_recommender_order = True  # it shuffles them by itself

    @classmethod
    def check(cls, settings: Settings) -> None:
        """See ``local_check.check_local``."""
        s = settings.teacher
        unless_labelled(settings, f"local|{_identity(s)}|{s.llm_scoring}|", check_local)

    def __init__(self, context: TeacherContext) -> None:
        super().__init__(context)
        self.settings = context.settings.teacher
        unit = context.settings.selection.alkd_unit
        self._prompt = load_prompt(self.settings.llm_prompt, context.dataset, unit)
        self._scorer: Scorer | None = None
        self._plain: Scorer | None = None  # the LM without its adapter, where it wrote the hints

    @cached_property
    def _model(self) -> str:
        return _identity(self.settings)

    @property
    def identity(self) -> str:
        """``llm_dtype`` counts as it is set: what ~ stands for depends on the machine,
        and hardly changes a ranking."""
        s = self.settings
        scoring = {
            "title": f"title_tokens={s.llm_title_tokens}",
            "index": f"title_tokens={s.llm_title_tokens}|orders={ORDERS}",
            "generate": f"hints={self.hint_key}",
        }[s.llm_scoring]
        settings = (
            f"history={s.llm_history}|top_n={s.llm_top_n}|seed={s.llm_seed}|dtype={s.llm_dtype or 'auto'}"
        )
        if s.llm_quantize:
            settings += f"|quantize={s.llm_quantize}"
        return f"local|{self._model}|{s.llm_scoring}|{scoring}|{settings}|adapter:{self._adapter.identity}"

    @cached_property
    def hint_key(self) -> str:  # type: ignore[override]
        if self.settings.llm_scoring != "generate":
            return "none"
        s = self.settings
        return hints.hint_key(
            self.context, self._prompt, f"local|{self._model}|{s.llm_dtype}|{s.llm_quantize}"
        )

    @cached_property
    def _adapter(self) -> OwnAdapter:
        texts = [self._prompt[key] for key in _TEXTS[self.settings.llm_scoring]]
        return OwnAdapter(self.context, self._model, self.hint_key, texts)

    @property
    def open_identity(self) -> bool:
        """Whether an adapter must be trained and judged before it is known whose labels these are."""
        return self._adapter.open

    def prompt(self, instance: Instance) -> str:
        """Session and candidates as the LM reads them; titles uncut, because cutting needs the tokenizer."""
        titles, texts = self.context.titles, self._prompt
        if self.settings.llm_scoring == "generate":
            return ranking_request(texts, instance, titles, self.settings).text
        prefix = title_prefix(texts, session_titles(instance, titles, self.settings.llm_history))
        if self.settings.llm_scoring == "title":
            return prefix + "\n".join(["", *(title_of(item, titles) for item in instance.candidates)])
        shown = [title_of(item, titles) for item in shown_order(instance, self.settings.llm_seed)]
        return prefix + "\n".join([texts["index.options"], *shown, texts["index.ask"]])

    def bound(self, instance: Instance) -> Cost:
        """A title has at most ``llm_title_tokens`` tokens and a line with its end or letter a few more; a
        byte of the prompt's own text, and of a generated answer, may be a token."""
        s, texts = self.settings, self._prompt
        if s.llm_scoring == "generate":
            answer = sum(len(item.encode()) + 7 for item in instance.candidates) + 16
            return Cost(len(self.prompt(instance).encode()) + _TEMPLATE + self._hint_bytes + answer)
        own = sum(len(texts[key].encode()) + 2 for key in _TEXTS[s.llm_scoring])
        session = min(len(instance.history), s.llm_history) * (s.llm_title_tokens + 2)
        candidates = len(instance.candidates) * (s.llm_title_tokens + 5)
        return Cost((own + session + candidates) * (ORDERS if s.llm_scoring == "index" else 1))

    @property
    def bound_words(self) -> str:
        return (
            "every byte a token"
            if self.settings.llm_scoring == "generate"
            else "every title of llm_title_tokens tokens"
        )

    def expect(self, instance: Instance) -> Cost:
        """Four bytes a token, two in what is written; ``measure`` counts with the tokenizer."""
        s, texts = self.settings, self._prompt
        most = self.bound(instance).tokens
        if s.llm_scoring == "generate":
            written = sum(
                sorted((len(item.encode()) + 7 for item in instance.candidates), reverse=True)[: s.llm_top_n]
            )
            read = len(self.prompt(instance).encode()) // 4 + _TEMPLATE + self._hint_bytes // 10
            return Cost(min(most, read + written // 2))
        titles = self.context.titles
        items = [*instance.history[-s.llm_history :], *instance.candidates]
        read = sum(
            min(s.llm_title_tokens, len(title_of(item, titles).encode()) // 4 + 1) + 1 for item in items
        )
        own = sum(len(texts[key].encode()) // 4 for key in _TEXTS[s.llm_scoring])
        return Cost(min(most, (own + read) * (ORDERS if s.llm_scoring == "index" else 1)))

    def measure(self, instances: Sequence[Instance]) -> Measured:
        """Loads the LM and asks it about three sessions; with an adapter that has learned nothing where one
        is wanted."""
        with threads(self.settings.llm_threads), kept_random_state():
            return measure_local(
                self._load(), instances, self.context.settings, bool(self.needs()), self._hint_bytes // 10
            )

    @property
    def _hint_bytes(self) -> int:
        most = hints.MAX_HINTS * (4 * hints.MAX_HINT + 4) + len(self._prompt["generate.hints"].encode())
        return 0 if self.hint_key == "none" else most

    def needs(self) -> frozenset[str]:
        """The examples of an adapter that is not there yet."""
        return frozenset({"lora_examples", "lora_held_out"} if self._adapter.missing else ())

    def _load(self) -> Scorer:
        """The LM without an adapter."""
        s, context = self.settings, self.context
        device = s.llm_device or context.device
        model, tokenizer = load_causal_lm(
            s.llm_model, device, s.llm_dtype, s.llm_quantize, s.llm_trust_remote_code
        )
        return SCORERS[s.llm_scoring](model, tokenizer, self._prompt, context.titles, s)

    def hint_messages(self, cases: Sequence[Instance]) -> list[dict[str, str]]:
        return hints.hint_messages(self._prompt, cases, self.context.titles)

    def text_costs(self, messages: Sequence[Mapping[str, str]]) -> tuple[Cost, Cost]:
        """One token for every byte, in both."""
        most = (
            sum(len(text.encode()) for message in messages for text in message.values())
            + _TEMPLATE
            + HINT_TOKENS
        )
        return Cost(most), Cost(most)

    def write(self, messages: Sequence[Mapping[str, str]], reservation: Reservation | None) -> Answer:
        with threads(self.settings.llm_threads), kept_random_state():
            self._plain = self._plain or self._load()
            assert isinstance(self._plain, GenerateScorer)
            return self._plain.chat(messages)

    def prepare(self, materials: Materials = NO_MATERIALS) -> None:
        """Load the model; give it its hints; train the adapter, or find it."""
        if self._scorer is not None:
            return
        with threads(self.settings.llm_threads), kept_random_state():
            scorer, self._plain = self._plain or self._load(), None
            if isinstance(scorer, GenerateScorer):
                scorer.hints = hints.needed(self.hint_key, materials.hints)
            elif self.settings.llm_hints:
                logger.info(
                    "hints: none are needed, llm_scoring %r writes no answers (llm_hints)",
                    self.settings.llm_scoring,
                )
            if self.context.settings.lora.lora:
                self._adapter.put_on(scorer, materials)
        self._scorer = scorer

    def prepare_with(self, materials: Materials, budget: Budget, store: LabelStore) -> Cost:
        """Needs neither budget nor store: what the LM writes costs time alone, and the engine counts it."""
        self.prepare(materials)
        return Cost()

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        """Sessions of like length are asked together."""
        for group in self.answers(instances, Asking()):
            yield from group

    def answers(
        self, instances: Sequence[Instance], asking: Asking
    ) -> Iterator[list[tuple[Instance, Answer]]]:
        """What is computed once for all sessions (the likelihoods of titles without a session, as the
        training of the adapter) is in no answer's tokens and seconds."""
        self.prepare()
        scorer = self._scorer
        assert scorer is not None
        with threads(self.settings.llm_threads):
            scorer.prepare({item for instance in instances for item in instance.candidates})
        cases = sorted(
            ((scorer.case(instance), instance) for instance in instances), key=lambda pair: pair[0].tokens
        )
        # a CPU gains nothing from batches, and alone a session's scores depend on nothing else
        size = self.settings.llm_batch_size or (
            1 if next(scorer.model.parameters()).device.type == "cpu" else 8
        )
        for start in range(0, len(cases), size):
            batch = [
                (case, instance)
                for case, instance in cases[start : start + size]
                if asking.may_send(instance)
            ]
            if not batch:
                continue
            asked = [instance for _, instance in batch]
            began = time.perf_counter()
            with threads(self.settings.llm_threads):
                answers = scorer.answers(asked, [case for case, _ in batch])
            seconds = (time.perf_counter() - began) / len(batch)
            for instance, answer in zip(asked, answers, strict=True):
                yield [(instance, replace(answer, seconds=seconds))]

    @property
    def lora_report(self) -> dict[str, Any] | None:
        return self._adapter.report

    def close(self) -> None:
        if self._scorer is None and self._plain is None:
            return
        self._scorer = self._plain = None
        gc.collect()  # modules and hooks refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _identity(settings: TeacherSettings) -> str:
    return model_identity(settings.llm_model, code=settings.llm_trust_remote_code is not None)
