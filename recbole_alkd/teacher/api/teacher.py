"""`api`: any LLM behind an OpenAI-compatible server ranks the candidates, as GPT-4 does in the paper (Module
1).

The prompt is the paper's in what it holds: role, hints, session, candidates; temperature 0. Nothing is sent
that the budget does not cover with an upper bound, which takes every byte for a token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

from recbole_alkd.labels.budget import Budget, Reservation
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.llm.chat_client import Messages
from recbole_alkd.llm.refusals import NoReplyError
from recbole_alkd.llm.replies import Reply, read_completion
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.teacher import hints
from recbole_alkd.teacher.answers.parse import ParsedRanking, read_ranking
from recbole_alkd.teacher.api.api_check import check_access, check_model, price_of
from recbole_alkd.teacher.api.exchange import OPENAI, TEMPLATE, Exchange, extended, list_bytes, most_tokens
from recbole_alkd.teacher.api.flight import Flight
from recbole_alkd.teacher.base import LLMTeacher
from recbole_alkd.teacher.local.local_check import unless_labelled
from recbole_alkd.teacher.prompt import load_prompt, ranking_request, shown_order
from recbole_alkd.teacher.records import NO_MATERIALS, Answer, Asking, Instance, Materials, TeacherContext

__all__ = ["OPENAI", "ApiTeacher"]
logger = logging.getLogger(__name__)

_HINT_TOKENS = 1000
_USUAL_HINTS = 250  # tokens of eight rules
_LONGEST_QUOTE = 2_000  # characters of an unusable answer that are shown to the LLM again
_ASKED_AGAIN = "\n\n=== asked again ===\n\n"


@teachers.register("api")
class ApiTeacher(LLMTeacher):
    """The model ``llm_model`` behind ``llm_base_url``.

    An answer without a usable ranking is asked for once more, more strictly;
    after that it is recorded as failed.
    """

    says_when_it_sends = True
    takes_recommender_order = True  # it shuffles them by itself

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        """The model's name, and its price where ``budget_usd`` rests on it."""
        check_model(settings.teacher)
        price_of(settings)

    @classmethod
    def check(cls, settings: Settings) -> None:
        """The extra `api`, and the variable with the key."""
        unless_labelled(settings, f"api|{settings.teacher.llm_model}|", check_access)

    def __init__(self, context: TeacherContext) -> None:
        super().__init__(context)
        self.settings = context.settings.teacher
        check_model(self.settings)
        self.chunk = 32 * self.settings.llm_concurrency  # at the end of a chunk some connections are idle
        unit = context.settings.selection.alkd_unit
        self._prompt = load_prompt(self.settings.llm_prompt, context.dataset, unit)
        self._exchange = Exchange(self.settings, price_of(context.settings))
        self._hints: str | None = None
        self._told_of_cut = False

    @cached_property
    def hint_key(self) -> str:
        return hints.hint_key(self.context, self._prompt, f"api|{self.settings.llm_model}")

    @property
    def identity(self) -> str:
        """The model is known by its name; the server's address is not a part of it, because it may move."""
        s = self.settings
        return (
            f"api|{s.llm_model}|temperature=0|max_tokens={s.llm_max_tokens or 'auto'}|hints={self.hint_key}|"
            f"history={s.llm_history}|top_n={s.llm_top_n}|seed={s.llm_seed}"
        )

    def prompt(self, instance: Instance) -> str:
        """The prompt without its hints, which are known by their key."""
        return ranking_request(self._prompt, instance, self.context.titles, self.settings).text

    def messages(self, instance: Instance) -> Messages:
        """The chat that is sent. ``prepare`` comes first, as the hints are in it."""
        return ranking_request(
            self._prompt, instance, self.context.titles, self.settings, self._hints or ""
        ).messages

    @property
    def bound_words(self) -> str:
        return "every byte a token, every answer asked for twice"

    def answer_tokens(self, instance: Instance) -> int:
        """Tokens that an answer may have."""
        return self.settings.llm_max_tokens or list_bytes(instance, self.settings.llm_top_n) + TEMPLATE

    def bound(self, instance: Instance) -> Cost:
        return self._exchange.cost(self._prompt_bound(instance), self.answer_tokens(instance))

    def most(self, instance: Instance) -> Cost:
        """The second request holds the first one, a part of the unusable answer, and what is asked then."""
        quote = 4 * _LONGEST_QUOTE + len(self._again(instance).encode())
        return self._exchange.cost(2 * self._prompt_bound(instance) + quote, 2 * self.answer_tokens(instance))

    @property
    def _hint_tokens(self) -> int:
        return max(_HINT_TOKENS, self.settings.llm_max_tokens or 0)

    def _prompt_bound(self, instance: Instance) -> int:
        prompt = most_tokens(self.messages(instance))
        if self._hints is None and self.hint_key != "none":
            prompt += hints.MAX_HINTS * (4 * hints.MAX_HINT + 4) + len(
                self._prompt["generate.hints"].encode()
            )
        return prompt

    def expect(self, instance: Instance) -> Cost:
        """Four bytes a token, which is about right for English titles, and two for the ids of the answer."""
        prompt = len(self.prompt(instance).encode("utf-8", "surrogatepass")) // 4
        if self.hint_key != "none":
            prompt += _USUAL_HINTS if self._hints is None else len(self._hints.encode()) // 4
        return self._exchange.cost(prompt, list_bytes(instance, self.settings.llm_top_n) // 2)

    @property
    def batch_share(self) -> float:
        """What a request in a batch file costs, as a share of the price."""
        return self._exchange.price.batch if self._exchange.price else 1.0

    def prepare(self, materials: Materials = NO_MATERIALS) -> None:
        """Take the hints, and start the client."""
        self.take(materials)
        self._exchange.start()

    def prepare_with(self, materials: Materials, budget: Budget, store: LabelStore) -> Cost:
        """Needs neither budget nor store."""
        self.prepare(materials)
        return Cost()

    def take(self, materials: Materials) -> None:
        """The hints that stand in the prompts from now on."""
        if self._hints is None:
            self._hints = hints.needed(self.hint_key, materials.hints)

    def hint_messages(self, cases: Sequence[Instance]) -> list[dict[str, str]]:
        return hints.hint_messages(self._prompt, cases, self.context.titles)

    def text_costs(self, messages: Sequence[Mapping[str, str]]) -> tuple[Cost, Cost]:
        most, tokens = most_tokens(messages), self._hint_tokens
        return self._exchange.cost(most // 4, tokens // 4), self._exchange.cost(most, tokens)

    def write(self, messages: Sequence[Mapping[str, str]], reservation: Reservation | None) -> Answer:
        self._exchange.start()
        tokens = self._hint_tokens
        try:
            reply = self._exchange.run(self._exchange.chat(messages, tokens, reservation, "the hints"))
        except NoReplyError as error:
            raise AlkdError(
                f"llm_hints: {self.settings.llm_model} gave no hints: {str(error).rstrip('. ')}; lower "
                "llm_hint_cases where its prompt was too long, or set llm_hints: False to do without them"
            ) from None
        return self._exchange.paid(Answer((), raw=self._exchange.raw(reply)), reply, messages, tokens)

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        """``llm_concurrency`` requests are in flight; an answer is given as soon as it is there."""
        for group in self.answers(instances, Asking()):
            yield from group

    def answers(
        self, instances: Sequence[Instance], asking: Asking
    ) -> Iterator[list[tuple[Instance, Answer]]]:
        self.prepare()
        yield from Flight(self._exchange, self._answer, self.settings.llm_concurrency).groups(
            instances, asking
        )

    def stop(self) -> bool:
        self._exchange.stop()
        return True

    def close(self) -> None:
        self._exchange.close()

    async def _answer(self, instance: Instance, asking: Asking) -> Answer:
        began = time.perf_counter()
        messages, tokens = self.messages(instance), self.answer_tokens(instance)
        reservation, name = asking.reservations.get(instance.row), f"session {instance.session}"
        reply = await self._exchange.chat(messages, tokens, reservation, name)
        answer = self._exchange.paid(Answer((), raw=self._exchange.raw(reply)), reply, messages, tokens)
        parsed = await self._parse(reply, instance)
        repairs = dict(parsed.repairs)
        if not parsed.items:
            # once more, and more strictly if there was a text; the answer that is there is kept beside the
            # new one
            stricter = self._stricter(messages, reply.text, instance) if reply.readable else messages
            if extended(reservation, self._exchange.cost(most_tokens(stricter), tokens)):
                try:
                    second = await self._exchange.chat(stricter, tokens, reservation, name)
                except NoReplyError as error:
                    logger.warning("%s: no second answer: %s", name, error)
                else:
                    answer = self._exchange.paid(
                        replace(answer, raw=answer.raw + _ASKED_AGAIN + self._exchange.raw(second)),
                        second,
                        stricter,
                        tokens,
                    )
                    parsed = await self._parse(second, instance)
                    repairs = {**parsed.repairs, "asked_again": 1}
        return replace(
            answer,
            ranking=parsed.items,
            repairs=repairs,
            seconds=time.perf_counter() - began,
            status="ok" if parsed.items else "failed",
        )

    def read_answer(self, instance: Instance, body: object) -> Answer:
        """The answer in a chat completion that came some other way, as in a batch file. At the full price.

        A ``body`` that is no chat completion was paid for as well: a failed answer.
        """
        reply = read_completion(body)
        parsed = read_ranking(
            reply.text, self._shown(instance), self.settings.llm_top_n, self.context.titles, cut=reply.cut
        )
        answer = Answer(
            parsed.items, self._exchange.raw(reply), parsed.repairs, status="ok" if parsed.items else "failed"
        )
        return self._exchange.paid(answer, reply, self.messages(instance), self.answer_tokens(instance))

    async def _parse(self, reply: Reply, instance: Instance) -> ParsedRanking:
        parse = partial(
            read_ranking,
            reply.text,
            self._shown(instance),
            self.settings.llm_top_n,
            self.context.titles,
            cut=reply.cut,
        )
        # a very long answer takes seconds, in which the others must not time out
        parsed = await asyncio.to_thread(parse) if len(reply.text) > 20_000 else parse()
        if reply.cut and not parsed.items and not self._told_of_cut:
            self._told_of_cut = True
            logger.warning(
                "an answer was cut off after %d tokens without a ranking; "
                "a model that thinks before it answers needs more (llm_max_tokens)",
                self.answer_tokens(instance),
            )
        return parsed

    def _shown(self, instance: Instance) -> tuple[str, ...]:
        """The candidates as the LLM was shown them: an answer that repeats them in this order is
        no ranking."""
        return shown_order(instance, self.settings.llm_seed)

    def _stricter(self, messages: Messages, text: str, instance: Instance) -> Messages:
        return [
            *messages,
            {"role": "assistant", "content": text[:_LONGEST_QUOTE].strip() or "-"},
            {"role": "user", "content": self._again(instance)},
        ]

    def _again(self, instance: Instance) -> str:
        return (
            self._prompt["generate.again"]
            .format(top_n=min(self.settings.llm_top_n, len(instance.candidates)))
            .strip()
        )
