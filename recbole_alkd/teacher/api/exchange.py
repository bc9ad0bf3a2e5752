"""Requests to the server of the `api` teacher: each inside of what is reserved for it, and what it cost.

Requests run in an event loop of their own, in a thread, so that answers are stored while others are on their
way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from recbole_alkd.labels.budget import Reservation
from recbole_alkd.labels.cost import Cost
from recbole_alkd.llm.api_key import find_key, known_key, strike
from recbole_alkd.llm.chat_client import ChatClient, Messages
from recbole_alkd.llm.prices import Price
from recbole_alkd.llm.refusals import NoReplyError
from recbole_alkd.llm.replies import Reply
from recbole_alkd.settings.groups import TeacherSettings
from recbole_alkd.teacher.records import Answer, Instance

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
TEMPLATE = 64  # tokens that a server's chat template may add
_LONGEST_RAW = 200_000  # characters of an answer that are kept
T = TypeVar("T")


def addresses(settings: TeacherSettings) -> list[str]:
    """The servers of ``llm_base_url``; none: OpenAI's."""
    urls = settings.llm_base_url
    return [urls] if isinstance(urls, str) else list(urls or ())


def most_tokens(messages: Messages) -> int:
    """Tokens of a chat at most: one for every byte, and what the server's chat template adds."""
    return (
        sum(len(text.encode("utf-8", "surrogatepass")) for message in messages for text in message.values())
        + TEMPLATE
    )


def list_bytes(instance: Instance, top_n: int) -> int:
    """Bytes of an answer in the form that is asked for, with the longest ids."""
    longest = sorted(
        (len(token.encode("utf-8", "surrogatepass")) for token in instance.candidates), reverse=True
    )[:top_n]
    return sum(size + len("<ID>, ") for size in longest) + 2


def extended(reservation: Reservation | None, more: Cost) -> bool:
    """Whether a further request may leave: nobody counts, or there is room for it, which is then reserved."""
    return reservation is None or reservation.extend(more.tokens, more.usd)


class Exchange:
    """The connection to the server at ``llm_base_url``, or to several, opened by ``start`` and ended by
    ``close``.

    Attributes:
        price: of the model, or None. loop, client: None before ``start``.
    """

    def __init__(self, settings: TeacherSettings, price: Price | None) -> None:
        self._settings, self.price = settings, price
        self.loop: asyncio.AbstractEventLoop | None = None
        self.client: ChatClient | None = None
        self._told_of_counts = False

    @property
    def nothing(self) -> float | None:
        """What a request costs that was not answered."""
        return 0.0 if self.price else None

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Cost:
        """Tokens with their price, where there is one."""
        usd = self.price.usd(prompt_tokens, completion_tokens, cached_tokens) if self.price else None
        return Cost(prompt_tokens, completion_tokens, usd=usd)

    def start(self) -> None:
        """Start the event loop and the client. A second call changes nothing.

        Raises:
            AlkdError: the key that the settings name is not there; several servers have different models.
        """
        if self.client is not None:
            return
        key = find_key(self._settings)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="api-teacher", daemon=True)
        self._thread.start()
        self.client = self.run(self._new_client(key))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives, done in the event loop."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def _new_client(self, key: str | None) -> ChatClient:
        s = self._settings
        urls = addresses(s) or [OPENAI]
        client = ChatClient(s.llm_model, urls, key, s.llm_timeout, s.llm_requests_per_minute)
        try:
            await client.start()
        except BaseException:
            await client.close()
            raise
        return client

    def stop(self) -> None:
        """Send nothing more."""
        if self.loop is not None and self.client is not None:
            self.loop.call_soon_threadsafe(self.client.stop)

    def close(self) -> None:
        """End connection, loop and thread. It can be called at any time."""
        if self.loop is None:
            return
        if self.client is not None:
            self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self.loop = self.client = None

    async def chat(
        self, messages: Messages, tokens: int, reservation: Reservation | None, name: str
    ) -> Reply:
        """The server's reply of at most ``tokens`` tokens.

        What a request that broke off may have cost is forfeited, and only what can be reserved again is sent
        again.

        Raises:
            NoReplyError: there is none.
        """
        most = self.cost(most_tokens(messages), tokens)

        def forfeit() -> None:
            logger.warning(
                "%s: a request that broke off may be charged; %d tokens are counted for it", name, most.tokens
            )
            if reservation:
                reservation.forfeit(most.tokens, most.usd)

        def may_resend() -> bool:
            forfeit()
            return extended(reservation, most)

        assert self.client is not None
        try:
            return await self.client.chat(messages, tokens, may_resend)
        except NoReplyError as error:
            if error.charged:
                forfeit()
            raise

    def raw(self, reply: Reply) -> str:
        """What is kept of an answer: as it came, without the key."""
        return strike((reply.text or reply.note)[:_LONGEST_RAW], known_key(self._settings))

    def paid(self, answer: Answer, reply: Reply, messages: Messages, tokens: int) -> Answer:
        """``answer`` with what ``reply`` cost added; the most where the server has not counted,
        or cannot count."""
        bounds, counts = (most_tokens(messages), tokens), (reply.prompt_tokens, reply.completion_tokens)
        odd = any(count is not None and count > bound for count, bound in zip(counts, bounds, strict=True))
        if odd and not self._told_of_counts:
            self._told_of_counts = True
            logger.warning(
                "the server counts more tokens than a request can have: %s in place of at most %d + %d; "
                "the latter are charged",
                " + ".join(f"{count:.3g}" for count in counts if count is not None), *bounds,
            )  # fmt: skip
        prompt, completion = (
            bound if count is None or count > bound else count
            for count, bound in zip(counts, bounds, strict=True)
        )
        return replace(answer, **vars(answer.cost + self.cost(prompt, completion, reply.cached_tokens)))
