"""One chat request to an OpenAI-compatible server, or to one of several, until there is an answer: the only
layer that retries.

Here are the pace (requests per minute, and Retry-After, which holds back every request to that server and not
only the one that was told), what is tried again, where and how often, and whether a request that brought no
answer may have been charged. ``server.py`` sends one try, ``servers.py`` says to whom.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from recbole_alkd.llm.refusals import NoReplyError, RefusedError, TryAgainError
from recbole_alkd.llm.replies import Reply
from recbole_alkd.llm.server import Messages, Server
from recbole_alkd.llm.servers import Servers
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)

TRIES = 6  # of one request, apart from those that the server put off with 429
CHARGED_TRIES = 3  # of those, that may have been charged
FIRST_PAUSE = 1.0  # seconds; doubled after each try
LONGEST_PAUSE = 60.0
DEAD = 3  # requests in a row that are given up: the server is gone, or all of them are
REFUSED = 10  # requests in a row that are refused: the server takes none
PATIENCE = 900.0  # seconds that one request may be put off


class ChatClient:
    """A model behind an OpenAI-compatible server, or behind several. To be used inside of one event loop.

    Args:
        model, urls, key: who is asked; ``key`` None: the servers need none.
        timeout: seconds for one try, from sending to the last byte.
        requests_per_minute: tries that are sent per minute at most, evenly spread, over all servers;
            None: no limit.
    """

    def __init__(
        self,
        model: str,
        urls: Sequence[str],
        key: str | None,
        timeout: float,
        requests_per_minute: int | None,
    ) -> None:
        self._model = model
        self._servers = Servers([Server(model, url, key, timeout) for url in urls], model)
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0
        self._stopped = asyncio.Event()
        self._given_up = self._most_tries = 0  # requests given up since the last answer, and the tries of one
        self._refusals: list[RefusedError] = []  # since the last answer
        self._flying = 0

    async def start(self) -> None:
        """Check several servers and watch them; see ``Servers.start``."""
        await self._servers.start()

    @property
    def answered(self) -> bool:
        """Whether any request was."""
        return self._servers.answered

    def stop(self) -> None:
        """Send nothing more; requests in flight go on."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def close(self) -> None:
        await self._servers.close()

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
        self._given_up, self._refusals = 0, []
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
            f"refuse{'' if self._servers.several else 's'} requests to the model {self._model!r}"
            if isinstance(why, RefusedError)
            else f"{self._does} not answer"
        )
        return AlkdError(f"llm_teacher: {self._servers.words} {what}{times}: {why}")

    @property
    def _does(self) -> str:
        return "do" if self._servers.several else "does"

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
            server = await self._wait_for_turn()
            self._servers.sent(server)
            try:
                reply = await server.send(messages, max_tokens)
                self._servers.fared(server, None)
                return reply
            except TryAgainError as problem:
                self._servers.fared(server, problem)
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
                    nobody_there = problem.nobody_there and not self.answered
                    if nobody_there or self._given_up >= DEAD:
                        raise AlkdError(
                            f"llm_base_url: {self._servers.words} {self._does} not answer "
                            f"({self._most_tries} tries): {problem}"
                        ) from None
                    raise NoReplyError(str(problem), problem.charged, given_up=True) from None
                pause = problem.pause if problem.pause is not None else self._backoff(tries + put_off)
                logger.debug("%s; trying again in %.1f s", problem, pause)
                if problem.put_off:
                    server.held_until = max(server.held_until, time.monotonic() + pause)
                elif not self._servers.others_are_in(server):
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

    async def _wait_for_turn(self) -> Server:
        """The server that is asked now."""
        while True:
            if self._stopped.is_set():
                raise NoReplyError("interrupted")
            now = time.monotonic()
            server = self._servers.best(now)
            if now < server.held_until:
                await self._sleep(server.held_until - now)
                continue
            if not self._spacing:
                return server
            turn = max(now, self._next)
            self._next = turn + self._spacing
            if turn > now:
                await self._sleep(turn - now)
            now = time.monotonic()
            server = self._servers.best(now)
            if now >= server.held_until:
                return server
