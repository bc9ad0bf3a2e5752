"""`api`: any LLM behind an OpenAI-compatible server ranks the candidates, as GPT-4 does in the paper (Module 1).

The prompt is the paper's in what it holds: role, hints, session, candidates; temperature 0. Requests run side by side in
an event loop of their own, so that answers are stored while others are on their way. Nothing is sent that the budget
does not cover with an upper bound, which takes every byte for a token.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from recbole_alkd.labels.asked import has_rankings
from recbole_alkd.labels.budget import Reservation
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.store import LabelStore
from recbole_alkd.llm.answers.parse import ParsedRanking, read_ranking
from recbole_alkd.llm.api_key import find_key, known_key, strike
from recbole_alkd.llm.chat_client import ChatClient, Messages
from recbole_alkd.llm.prices import Price, find_price
from recbole_alkd.llm.refusals import NoReplyError, RefusedError
from recbole_alkd.llm.replies import Reply, read_completion
from recbole_alkd.registry import teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings, TeacherSettings
from recbole_alkd.teacher import hints
from recbole_alkd.teacher.base import Answer, Instance, LLMTeacher, TeacherContext
from recbole_alkd.teacher.local.local_check import unless_labelled
from recbole_alkd.teacher.prompt import load_prompt, ranking_request, shown_order

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
_HINT_TOKENS = 1000
_USUAL_HINTS = 250  # tokens of eight rules
_TEMPLATE = 64  # tokens that a server's chat template may add
_LONGEST_RAW = 200_000  # characters of an answer that are kept
_LONGEST_QUOTE = 2_000  # characters of an unusable answer that are shown to the LLM again
_ASKED_AGAIN = "\n\n=== asked again ===\n\n"
T = TypeVar("T")
# an answer, and what is set when it is stored; None: all of them are there
Answers: TypeAlias = "queue.SimpleQueue[tuple[Instance, Answer, asyncio.Event] | None]"


@teachers.register("api")
class ApiTeacher(LLMTeacher):
    """The model ``llm_model`` behind ``llm_base_url``.

    An answer without a usable ranking is asked for once more, more strictly; after that it is recorded as failed.
    """

    says_when_it_sends = True

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        """The model's name, and its price where ``budget_usd`` rests on it."""
        _check_model(settings.teacher)
        price_of(settings)

    @classmethod
    def check(cls, settings: Settings) -> None:
        """The extra `api`, and the variable with the key."""
        unless_labelled(settings, f"api|{settings.teacher.llm_model}|", _check_access)

    def __init__(self, context: TeacherContext) -> None:
        super().__init__(context)
        self.settings = context.settings.teacher
        _check_model(self.settings)
        self.chunk = 32 * self.settings.llm_concurrency  # at the end of a chunk some connections are idle
        self._prompt = load_prompt(self.settings.llm_prompt, context.dataset)
        self._price = price_of(context.settings)
        self._hints: str | None = None
        self._told_of_cut = self._told_of_counts = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: ChatClient | None = None

    # -- what decides an answer ------------------------------------------------------------------------------------------

    @cached_property
    def _hint_key(self) -> str:
        return hints.hint_key(self.context, self._prompt, f"api|{self.settings.llm_model}")

    @property
    def identity(self) -> str:
        """The model is known by its name; the server's address is not a part of it, because it may move."""
        s = self.settings
        return (
            f"api|{s.llm_model}|temperature=0|max_tokens={s.llm_max_tokens or 'auto'}|hints={self._hint_key}|"
            f"history={s.llm_history}|top_n={s.llm_top_n}|seed={s.llm_seed}"
        )

    def prompt(self, instance: Instance) -> str:
        """The prompt without its hints, which are known by their key."""
        return ranking_request(self._prompt, instance, self.context.titles, self.settings).text

    def messages(self, instance: Instance) -> Messages:
        """The chat that is sent. ``prepare`` comes first, as the hints are in it."""
        return ranking_request(self._prompt, instance, self.context.titles, self.settings, self._hints or "").messages

    @property
    def bound_words(self) -> str:
        return "every byte a token, every answer asked for twice"

    def answer_tokens(self, instance: Instance) -> int:
        """Tokens that an answer may have."""
        return self.settings.llm_max_tokens or _list_bytes(instance, self.settings.llm_top_n) + _TEMPLATE

    def bound(self, instance: Instance) -> Cost:
        return self._cost(self._prompt_bound(instance), self.answer_tokens(instance))

    def most(self, instance: Instance) -> Cost:
        """The second request holds the first one, a part of the unusable answer, and what is asked then."""
        quote = 4 * _LONGEST_QUOTE + len(self._again(instance).encode())
        return self._cost(2 * self._prompt_bound(instance) + quote, 2 * self.answer_tokens(instance))

    def preparation_cost(self, store: LabelStore | None) -> list[Cost]:
        messages = hints.missing_request(self, self._prompt, self._hint_key, store)
        bound, tokens = bound_of(messages), self._hint_tokens
        return [self._cost(bound // 4, tokens // 4), self._cost(bound, tokens)] if messages else []

    @property
    def _hint_tokens(self) -> int:
        return max(_HINT_TOKENS, self.settings.llm_max_tokens or 0)

    def _prompt_bound(self, instance: Instance) -> int:
        prompt = bound_of(self.messages(instance))
        if self._hints is None and self._hint_key != "none":
            prompt += hints.MAX_HINTS * (4 * hints.MAX_HINT + 4) + len(self._prompt["generate.hints"].encode())
        return prompt

    def _cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Cost:
        usd = self._price.usd(prompt_tokens, completion_tokens, cached_tokens) if self._price else None
        return Cost(prompt_tokens, completion_tokens, usd=usd)

    def expect(self, instance: Instance) -> Cost:
        """Four bytes a token, which is about right for English titles, and two for the ids of the answer."""
        prompt = len(self.prompt(instance).encode("utf-8", "surrogatepass")) // 4
        if self._hint_key != "none":
            prompt += _USUAL_HINTS if self._hints is None else len(self._hints.encode()) // 4
        return self._cost(prompt, _list_bytes(instance, self.settings.llm_top_n) // 2)

    @property
    def batch_share(self) -> float:
        """What a request in a batch file costs, as a share of the price."""
        return self._price.batch if self._price else 1.0

    # -- asking ----------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start the client; find the hints or ask for them."""
        self._start()
        self.find_hints()

    def find_hints(self) -> None:
        """The hints that are kept, or new ones; the server is only asked when there are none yet."""
        if self._hints is None:
            self._hints = hints.find_hints(self, self._prompt, self._hint_key, self._ask_for_hints)

    def _start(self) -> None:
        if self._client is not None:
            return
        key = find_key(self.settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-teacher", daemon=True)
        self._thread.start()
        self._client = self._run(self._new_client(key))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _new_client(self, key: str | None) -> ChatClient:
        s = self.settings
        return ChatClient(s.llm_model, s.llm_base_url or OPENAI, key, s.llm_timeout, s.llm_requests_per_minute)

    def _ask_for_hints(self, messages: Messages) -> Answer:
        self._start()
        tokens = self._hint_tokens
        reservation = None
        if self.budget:
            most = self._cost(bound_of(messages), tokens)
            reservation = self.budget.reserve(most.tokens, most.usd, labels=0)
            if reservation is None:
                raise AlkdError(f"{self.budget.refusal}: too little for the hints; set llm_hints: False to do without them")
            reservation.begin()
        try:
            reply = self._run(self._chat(messages, tokens, reservation, "the hints"))
        except NoReplyError as error:
            if reservation:
                reservation.release()
            raise AlkdError(
                f"llm_hints: {self.settings.llm_model} gave no hints: {error}; "
                "lower llm_hint_cases, or set llm_hints: False to do without them"
            ) from None
        answer = self._paid(Answer((), raw=self._raw(reply)), reply, messages, tokens)
        if reservation:
            reservation.settle(answer.cost.tokens, answer.usd, labels=0)
        return answer

    def ask(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, Answer]]:
        """``llm_concurrency`` requests are in flight; an answer is given as soon as it is there. The next request leaves when it
        is stored: where the store must wait, so does the asking, and never more than ``llm_concurrency`` answers are at risk."""
        for group in self.ask_in_groups(instances):
            yield from group

    def ask_in_groups(self, instances: Sequence[Instance]) -> Iterator[list[tuple[Instance, Answer]]]:
        self.prepare()
        assert self._loop is not None
        answers: Answers = queue.SimpleQueue()
        job = asyncio.run_coroutine_threadsafe(self._ask_all(instances, answers), self._loop)
        ended = False
        try:
            while not ended:
                group = [answers.get(), *(answers.get() for _ in range(answers.qsize()))]
                ended = group[-1] is None  # nothing comes behind it
                answered = [found for found in group if found is not None]
                yield [(instance, answer) for instance, answer, _ in answered]
                for *_, stored in answered:
                    self._loop.call_soon_threadsafe(stored.set)
            job.result()  # raises what ended it
        finally:
            if not ended:
                job.cancel()
                while answers.get() is not None:
                    pass

    def stop(self) -> bool:
        if self._loop is not None and self._client is not None:
            self._loop.call_soon_threadsafe(self._client.stop)
        return True

    def close(self) -> None:
        if self._loop is None:
            return
        if self._client is not None:
            self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._client = None

    async def _ask_all(self, instances: Sequence[Instance], answers: Answers) -> None:
        client = self._client
        assert client is not None
        waiting, held = deque(instances), Held()

        async def work() -> None:
            try:
                while waiting and not client.stopped:
                    instance = waiting.popleft()
                    if not await asyncio.to_thread(self.may_send, instance):
                        continue
                    try:
                        answer = await self._answer(instance)
                    except RefusedError as refusal:
                        held.refused.append((instance, refusal))
                        continue
                    except NoReplyError as error:
                        logger.warning("session %s: no label: %s", instance.session, error)
                        held.last = error if error.given_up else held.last
                        answer = Answer((), raw=str(error), usd=self._nothing, status="unanswered")
                    else:
                        release()  # the server answers, so what it refused was those requests
                    stored = asyncio.Event()
                    answers.put((instance, answer, stored))
                    await stored.wait()
            except BaseException:
                client.stop()  # the others finish what they have sent, and it is stored
                raise

        def release() -> None:
            for instance, refusal in held.refused:
                logger.warning("session %s: no label: %s", instance.session, refusal)
                answer = Answer((), raw=str(refusal), usd=self._nothing, status="failed")
                answers.put((instance, answer, asyncio.Event()))  # it cost nothing: nobody waits for it
            held.refused.clear()

        try:
            ends = await asyncio.gather(*(work() for _ in range(self.settings.llm_concurrency)), return_exceptions=True)
            if client.answered:
                release()
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            if client.stopped:
                return
            client.check_end()
            why = None if client.answered else held.doubt(self._has_answered)
            if why is not None:
                raise client.refuses(why)
            release()
        finally:
            answers.put(None)

    @property
    def _nothing(self) -> float | None:
        """What a request costs that was not answered."""
        return 0.0 if self._price else None

    def _has_answered(self) -> bool:
        """Whether this LLM has given a ranking before: then it is there, and what it refuses now are single requests."""
        return self.store is not None and has_rankings(self.store, self.identity)

    async def _answer(self, instance: Instance) -> Answer:
        began = time.perf_counter()
        messages, tokens = self.messages(instance), self.answer_tokens(instance)
        reservation, name = self.reservations.get(instance.row), f"session {instance.session}"
        reply = await self._chat(messages, tokens, reservation, name)
        answer = self._paid(Answer((), raw=self._raw(reply)), reply, messages, tokens)
        parsed = await self._parse(reply, instance)
        repairs = dict(parsed.repairs)
        if not parsed.items:
            # once more, and more strictly if there was a text; the answer that is there is kept beside the new one
            stricter = self._stricter(messages, reply.text, instance) if reply.readable else messages
            if _extended(reservation, self._cost(bound_of(stricter), tokens)):
                try:
                    second = await self._chat(stricter, tokens, reservation, name)
                except NoReplyError as error:
                    logger.warning("%s: no second answer: %s", name, error)
                else:
                    answer = self._paid(
                        replace(answer, raw=answer.raw + _ASKED_AGAIN + self._raw(second)), second, stricter, tokens
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

    async def _chat(self, messages: Messages, tokens: int, reservation: Reservation | None, name: str) -> Reply:
        most = self._cost(bound_of(messages), tokens)

        def forfeit() -> None:
            logger.warning("%s: a request that broke off may be charged; %d tokens are counted for it", name, most.tokens)
            if reservation:
                reservation.forfeit(most.tokens, most.usd)

        def may_resend() -> bool:
            forfeit()
            return _extended(reservation, most)

        assert self._client is not None
        try:
            return await self._client.chat(messages, tokens, may_resend)
        except NoReplyError as error:
            if error.charged:
                forfeit()
            raise

    def read_answer(self, instance: Instance, body: object) -> Answer:
        """The answer in a chat completion that came some other way, as in a batch file. At the full price.

        A ``body`` that is no chat completion was paid for as well: a failed answer.
        """
        reply = read_completion(body)
        parsed = read_ranking(reply.text, self._shown(instance), self.settings.llm_top_n, self.context.titles, cut=reply.cut)
        answer = Answer(parsed.items, self._raw(reply), parsed.repairs, status="ok" if parsed.items else "failed")
        return self._paid(answer, reply, self.messages(instance), self.answer_tokens(instance))

    async def _parse(self, reply: Reply, instance: Instance) -> ParsedRanking:
        parse = partial(
            read_ranking, reply.text, self._shown(instance), self.settings.llm_top_n, self.context.titles, cut=reply.cut
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
        """The candidates as the LLM was shown them: an answer that repeats them in this order is no ranking."""
        return shown_order(instance, self.settings.llm_seed)

    def _raw(self, reply: Reply) -> str:
        """What is kept of an answer: as it came, without the key."""
        return strike((reply.text or reply.note)[:_LONGEST_RAW], known_key(self.settings))

    def _stricter(self, messages: Messages, text: str, instance: Instance) -> Messages:
        return [
            *messages,
            {"role": "assistant", "content": text[:_LONGEST_QUOTE].strip() or "-"},
            {"role": "user", "content": self._again(instance)},
        ]

    def _again(self, instance: Instance) -> str:
        return self._prompt["generate.again"].format(top_n=min(self.settings.llm_top_n, len(instance.candidates))).strip()

    def _paid(self, answer: Answer, reply: Reply, messages: Messages, tokens: int) -> Answer:
        """``answer`` with what ``reply`` cost added; the upper bounds where the server has not counted, or cannot count."""
        bounds, counts = (bound_of(messages), tokens), (reply.prompt_tokens, reply.completion_tokens)
        if (
            any(count is not None and count > bound for count, bound in zip(counts, bounds, strict=True))
            and not self._told_of_counts
        ):
            self._told_of_counts = True
            logger.warning(
                "the server counts more tokens than a request can have: %s in place of at most %d + %d; the latter are charged",
                " + ".join(f"{count:.3g}" for count in counts if count is not None), *bounds,
            )  # fmt: skip
        prompt, completion = (
            bound if count is None or count > bound else count for count, bound in zip(counts, bounds, strict=True)
        )
        return replace(answer, **vars(answer.cost + self._cost(prompt, completion, reply.cached_tokens)))


@dataclass
class Held:
    """Requests that the server refused, until it has answered one; ``last``: the last that was given up."""

    refused: list[tuple[Instance, RefusedError]] = field(default_factory=list)
    last: NoReplyError | None = None

    def doubt(self, has_answered: Callable[[], bool]) -> NoReplyError | None:
        """Why the server may be one that answers nothing; None where it is not."""
        why = next((refusal for _, refusal in self.refused if not refusal.certain), self.last)
        return None if why is None or has_answered() else why


def _extended(reservation: Reservation | None, more: Cost) -> bool:
    """Whether a further request may leave: nobody counts, or there is room for it, which is then reserved."""
    return reservation is None or reservation.extend(more.tokens, more.usd)


def bound_of(messages: Messages) -> int:
    """Tokens of a chat at most: one for every byte, and what the server's chat template adds."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for message in messages for text in message.values()) + _TEMPLATE


def _list_bytes(instance: Instance, top_n: int) -> int:
    """Bytes of an answer in the form that is asked for, with the longest ids."""
    longest = sorted((len(token.encode("utf-8", "surrogatepass")) for token in instance.candidates), reverse=True)[:top_n]
    return sum(size + len("<ID>, ") for size in longest) + 2


def price_of(settings: Settings) -> Price | None:
    """What the model asks for its tokens; AlkdError where ``budget_usd`` needs a price and there is none."""
    teacher = settings.teacher
    file = Path(teacher.llm_price_file) if teacher.llm_price_file else None
    return find_price(file, teacher.llm_model, settings.selection.budget_usd is not None)


def _check_model(settings: TeacherSettings) -> None:
    default = type(settings)().llm_model
    if settings.llm_model == default:
        raise AlkdError(f"llm_model: {default!r} is the model of llm_teacher local; name one that your server has")


def _check_access(settings: Settings) -> None:
    if importlib.util.find_spec("openai") is None:
        raise AlkdError("llm_teacher: 'api' needs the openai package: pip install 'recbole_alkd[api]'")
    find_key(settings.teacher)
