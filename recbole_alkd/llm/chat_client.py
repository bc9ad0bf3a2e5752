"""One chat request to an OpenAI-compatible server, until there is an answer: the only layer that retries.

The `openai` client does the HTTP (with its own retries switched off). Here are the pace (requests per minute,
and Retry-After, which holds back every request and not only the one that was told), what is tried again and
how often, and whether a request that brought no answer may have been charged. What a server's refusal means
is read in ``refusals.py``, what it answers in ``replies.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recbole_alkd.llm.api_key import one_line, strike
from recbole_alkd.llm.body_limit import HEADERS, limit_body
from recbole_alkd.llm.messages import sendable, without_system
from recbole_alkd.llm.refusals import NoReplyError, RefusedError, Status, TryAgainError
from recbole_alkd.llm.replies import NoAnswerError, Reply, read_content
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)

TRIES = 6  # of one request, apart from those that the server put off with 429
CHARGED_TRIES = 3  # of those, that may have been charged
FIRST_PAUSE = 1.0  # seconds; doubled after each try
LONGEST_PAUSE = 60.0
DEAD = 3  # requests in a row that are given up: the server is gone
REFUSED = 10  # requests in a row that are refused: the server takes none
PATIENCE = 900.0  # seconds that one request may be put off

Messages = Sequence[Mapping[str, str]]


class ChatClient:
    """A model behind an OpenAI-compatible server. To be used inside of one event loop.

    Args:
        model, base_url, key: who is asked; ``key`` None: the server needs none.
        timeout: seconds for one try, from sending to the last byte.
        requests_per_minute: tries that are sent per minute at most, evenly spread; None: no limit.
    """

    def __init__(
        self, model: str, base_url: str, key: str | None, timeout: float, requests_per_minute: int | None
    ) -> None:
        try:
            import openai
        except ImportError:
            raise AlkdError(
                "llm_teacher: 'api' needs the openai package: pip install 'recbole_alkd[api]'"
            ) from None
        self._openai = openai
        for name in ("httpx", "httpx2"):  # they log every request, and RecBole shows what any library logs
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
        self._model, self._base_url, self._timeout, self._key = model, base_url, timeout, key
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            default_headers=HEADERS,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [limit_body()]}),
        )
        self._fields: dict[str, Any] = {"temperature": 0}
        self._takes_system = True
        # every server knows this name; OpenAI's newer models want another and say so
        self._limit = "max_tokens"
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next, self._held_until = 0.0, 0.0
        self._stopped = asyncio.Event()
        self.answered = False  # whether any request was
        self._given_up = self._most_tries = 0  # requests given up since the last answer, and the tries of one
        self._refusals: list[RefusedError] = []  # since the last answer
        self._flying = 0

    def stop(self) -> None:
        """Send nothing more; requests in flight go on."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def close(self) -> None:
        await self._client.close()

    def strike(self, text: str) -> str:
        """``text`` without the API key: servers repeat it."""
        return strike(text, self._key)

    async def chat(
        self, messages: Messages, max_tokens: int, may_resend: Callable[[], bool] = lambda: True
    ) -> Reply:
        """The model's answer; one without text where it cannot be read.

        Args:
            max_tokens: of the answer.
            may_resend: asked before a request is sent again that may have been charged;
                it takes note of the charge.

        Raises:
            RefusedError: the server refuses this request.
            NoReplyError: there is no answer to this request; others may be answered.
            AlkdError: no request can be answered: wrong key, model or address, an account without credit, a
                dead server, one that refuses many requests in a row.
        """
        await self._wait_while_refused()
        self._flying += 1
        try:
            reply = await self._chat(messages, max_tokens, may_resend)
        except RefusedError as refusal:
            self._refusals.append(refusal)
            raise
        finally:
            self._flying -= 1
        self.answered, self._given_up, self._refusals = self.answered or reply.readable, 0, []
        return reply

    def check_end(self) -> None:
        """To be called when nothing is in flight: AlkdError where the server has refused too many requests in
        a row."""
        if len(self._refusals) >= REFUSED:
            raise self.refuses(self._refusals[-1])

    def refuses(self, why: NoReplyError) -> AlkdError:
        """The error of a server that answers nothing because of ``why``."""
        times = f", {len(self._refusals)} requests in a row" if len(self._refusals) > 1 else ""
        what = (
            f"refuses requests to the model {self._model!r}"
            if isinstance(why, RefusedError)
            else "does not answer"
        )
        return AlkdError(f"llm_teacher: {self._base_url} {what}{times}: {why}")

    async def _wait_while_refused(self) -> None:
        """After too many refusals, what is in flight decides whether the server answers at all."""
        while len(self._refusals) >= REFUSED:
            if not self._flying:
                self.check_end()
            await self._sleep(0.02)

    async def _chat(self, messages: Messages, max_tokens: int, may_resend: Callable[[], bool]) -> Reply:
        deadline = time.monotonic() + PATIENCE
        tries = put_off = charged = 0
        while True:
            await self._wait_for_turn()
            try:
                return await self._send(messages, max_tokens)
            except TryAgainError as problem:
                tries, put_off, charged = (
                    tries + (not problem.put_off),
                    put_off + problem.put_off,
                    charged + problem.charged,
                )
                # while nothing is answered, a server that has given up one request gets one try for each
                # other
                most = TRIES if self.answered or not self._given_up else 1
                if tries >= most or charged >= CHARGED_TRIES or time.monotonic() > deadline:
                    self._given_up += 1
                    self._most_tries = max(self._most_tries, tries)
                    if problem.nobody_there or self._given_up >= DEAD:
                        raise AlkdError(
                            f"llm_base_url: {self._base_url} does not answer ({self._most_tries} tries): "
                            f"{problem}"
                        ) from None
                    raise NoReplyError(str(problem), problem.charged, given_up=True) from None
                pause = problem.pause if problem.pause is not None else self._backoff(tries + put_off)
                logger.debug("%s; trying again in %.1f s", problem, pause)
                if problem.put_off:
                    self._held_until = max(self._held_until, time.monotonic() + pause)
                else:
                    await self._sleep(pause, problem.charged)
                if problem.charged and not may_resend():
                    raise NoReplyError(f"{problem}; the budget has nothing left to send it again") from None

    def _backoff(self, tries: int) -> float:
        # random, so that requests that failed together do not come back together
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)

    async def _sleep(self, seconds: float, charged: bool = False) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), max(0.0, seconds))
        except asyncio.TimeoutError:
            return
        raise NoReplyError("interrupted", charged)

    async def _wait_for_turn(self) -> None:
        while True:
            if self._stopped.is_set():
                raise NoReplyError("interrupted")
            now = time.monotonic()
            if now < self._held_until:
                await self._sleep(self._held_until - now)
                continue
            if not self._spacing:
                return
            turn = max(now, self._next)
            self._next = turn + self._spacing
            if turn > now:
                await self._sleep(turn - now)
            if time.monotonic() >= self._held_until:
                return

    async def _send(self, messages: Messages, max_tokens: int) -> Reply:
        chat = [{name: sendable(text) for name, text in message.items()} for message in messages]
        if not self._takes_system:
            chat = without_system(chat)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": chat,
            self._limit: max_tokens,
            **self._fields,
        }
        openai = self._openai
        try:
            # the client's own timeout starts anew with every byte
            response = await asyncio.wait_for(
                self._client.chat.completions.with_raw_response.create(**body), self._timeout
            )
            return read_content(response.content)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            raise TryAgainError(f"no answer within {self._timeout:g} s (llm_timeout)", charged=True) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            never_left = type(cause).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout")
            words = one_line(self.strike(f"{error} {cause or ''}"))
            raise TryAgainError(
                words, charged=not never_left, nobody_there=never_left and not self.answered
            ) from None
        except NoAnswerError as error:
            raise TryAgainError(one_line(self.strike(str(error))), charged=True) from None
        except openai.APIStatusError as error:
            raise self._status_problem(Status.of(error, self.strike), body) from None

    def _status_problem(self, status: Status, sent: Mapping[str, Any]) -> Exception:
        if status.is_form and self._adapt(status, sent):
            return TryAgainError(str(status), False, pause=0.0, put_off=True)
        if status.is_wrong_key:  # the server's words can hold a part of the key
            return AlkdError(
                f"llm_api_key_env: {self._base_url} does not accept the key in that variable ({status.code})"
            )
        if (status.is_own or (status.code == 403 and self.answered)) and (
            self.answered or not status.is_general
        ):
            return RefusedError(str(status), certain=status.is_certain)
        if status.passes:
            return TryAgainError(str(status), False, status.pause, put_off=status.code == 429)
        return AlkdError(
            f"llm_teacher: {self._base_url} refuses requests to the model {self._model!r} ({status.code}): "
            f"{status.words}"
        )

    def _adapt(self, status: Status, sent: Mapping[str, Any]) -> bool:
        """Whether the server named something that it does not take and that can be said otherwise or left
        out."""
        had_system = any(message["role"] == "system" for message in sent["messages"])
        if (
            self._limit not in sent
            or len(sent) > 3 + len(self._fields)
            or (had_system and not self._takes_system)
        ):
            return True  # another request has found out meanwhile
        if self.answered:
            return False  # it has taken all of this before: the words are about something else
        if self._limit == "max_tokens" and status.names("max_tokens", "max_completion_tokens"):
            self._limit = "max_completion_tokens"
            return True
        if "temperature" in self._fields and status.names("temperature", "temperature"):
            logger.warning(
                "the model %r takes no temperature: its answers may differ from one time to the next",
                self._model,
            )
            del self._fields["temperature"]
            return True
        if had_system and status.is_about_system:
            logger.info(
                "the model %r knows no system role: its text goes into the user's message", self._model
            )
            self._takes_system = False
            return True
        return False
