"""One chat request to an OpenAI-compatible server, until there is an answer: the only layer that retries.

The `openai` client does the HTTP (with its own retries switched off). Here are the pace (requests per minute, and
Retry-After, which holds back every request and not only the one that was told), what is tried again and how often, and
whether a request that brought no answer may have been charged.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_alkd.config import AlkdError

logger = logging.getLogger(__name__)

TRIES = 6  # of one request, apart from those that the server put off with 429
FIRST_PAUSE = 1.0  # seconds; doubled after each try
LONGEST_PAUSE = 60.0
DEAD = 3  # requests in a row that are given up: the server is gone
PATIENCE = 900.0  # seconds that one request may be put off

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Reply:
    """An answer, the tokens that the server counted (None where it counted none), and whether ``max_tokens`` cut it off."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int = 0
    cut: bool = False


class NoReplyError(Exception):
    """No answer came. ``charged``: whether the last request may be charged all the same."""

    def __init__(self, why: str, charged: bool = False) -> None:
        super().__init__(why)
        self.charged = charged


class RefusedError(NoReplyError):
    """The server refuses this one request, and would again: it is too long, or its content is filtered."""


class _TryAgainError(Exception):
    def __init__(self, why: str, charged: bool, pause: float | None = None, put_off: bool = False) -> None:
        super().__init__(why)
        self.charged, self.pause, self.put_off = charged, pause, put_off


class ChatClient:
    """A model behind an OpenAI-compatible server. To be used inside of one event loop.

    Args:
        model, base_url, key: who is asked; ``key`` None: the server needs none.
        timeout: seconds for one try, from sending to the last byte.
        requests_per_minute: tries that are sent per minute at most, evenly spread; None: no limit.
    """

    def __init__(self, model: str, base_url: str, key: str | None, timeout: float, requests_per_minute: int | None) -> None:
        try:
            import openai
        except ImportError:
            raise AlkdError("llm_teacher: 'api' needs the openai package: pip install 'recbole_alkd[api]'") from None
        self._openai = openai
        for name in ("httpx", "httpx2"):  # they log every request, and RecBole shows what any library logs
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
        self._model, self._base_url, self._timeout = model, base_url, timeout
        self._client = openai.AsyncOpenAI(api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=0)
        self._fields: dict[str, Any] = {"temperature": 0}
        self._limit = "max_tokens"  # every server knows this name; OpenAI's newer models want another and say so
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next, self._held_until = 0.0, 0.0
        self._stopped = asyncio.Event()
        self._given_up: int | None = None  # requests given up since the last answer; None before the first answer

    def stop(self) -> None:
        """Send nothing more; requests in flight go on."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def close(self) -> None:
        await self._client.close()

    async def chat(self, messages: Messages, max_tokens: int, may_resend: Callable[[], bool] = lambda: True) -> Reply:
        """The model's answer.

        Args:
            max_tokens: of the answer.
            may_resend: asked before a request is sent again that may have been charged; it takes note of the charge.

        Raises:
            NoReplyError: there is no answer to this request; others may be answered.
            AlkdError: no request can be answered: wrong key, model or address, an account without credit, a dead server.
        """
        deadline = time.monotonic() + PATIENCE
        tries = put_off = 0
        while True:
            await self._wait_for_turn()
            try:
                reply = await self._send(messages, max_tokens)
                self._given_up = 0
                return reply
            except _TryAgainError as problem:
                tries, put_off = tries + (not problem.put_off), put_off + problem.put_off
                if tries >= TRIES or time.monotonic() > deadline:
                    if self._given_up is None or self._given_up + 1 >= DEAD:
                        raise AlkdError(f"llm_base_url: {self._base_url} does not answer ({tries} tries): {problem}") from None
                    self._given_up += 1
                    raise NoReplyError(str(problem), problem.charged) from None
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
        body: dict[str, Any] = {"model": self._model, "messages": list(messages), self._limit: max_tokens, **self._fields}
        openai = self._openai
        try:
            # the client's own timeout starts anew with every byte
            response = await asyncio.wait_for(self._client.chat.completions.with_raw_response.create(**body), self._timeout)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            raise _TryAgainError(f"no answer within {self._timeout:g} s (llm_timeout)", charged=True) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            never_left = type(cause).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout")
            raise _TryAgainError(f"{error} {cause or ''}".strip(), charged=not never_left) from None
        except openai.APIStatusError as error:
            raise self._status_problem(error, body) from None
        return _read(response.content)

    def _status_problem(self, error: Any, sent: Mapping[str, Any]) -> Exception:
        status, details = error.status_code, error.body if isinstance(error.body, dict) else {}
        code, words = details.get("code"), str(details.get("message") or error.message)[:500]
        if status == 429 and code != "insufficient_quota":
            return _TryAgainError(f"429: {words}", False, _retry_after(error.response.headers), put_off=True)
        if status >= 500 or status in (408, 409):
            return _TryAgainError(f"{status}: {words}", False, _retry_after(error.response.headers))
        if status in (400, 422):
            if code in ("context_length_exceeded", "content_filter"):
                return RefusedError(f"{status}: {words}")
            if self._adapt(words, str(details.get("param") or ""), sent):
                return _TryAgainError(words, False, pause=0.0, put_off=True)
        if status == 401:  # the server's words can hold a part of the key
            return AlkdError(f"llm_api_key_env: {self._base_url} does not accept the key in that variable (401)")
        return AlkdError(f"llm_teacher: {self._base_url} refuses requests to the model {self._model!r} ({status}): {words}")

    def _adapt(self, words: str, param: str, sent: Mapping[str, Any]) -> bool:
        """Whether the server named a field that it does not take and that can be said otherwise or left out."""
        if self._limit not in sent or ("temperature" in sent and "temperature" not in self._fields):
            return True  # another request has found out meanwhile
        if self._limit == "max_tokens" and (param == "max_tokens" or "max_completion_tokens" in words):
            self._limit = "max_completion_tokens"
            return True
        if "temperature" in self._fields and (param == "temperature" or "temperature" in words):
            logger.warning("the model %r takes no temperature: its answers may differ from one time to the next", self._model)
            del self._fields["temperature"]
            return True
        return False


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, as a number of seconds or milliseconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        if seconds == seconds:
            return min(max(0.0, seconds), PATIENCE)
    return None


def _read(content: bytes) -> Reply:
    try:
        return read_completion(json.loads(content))
    except (ValueError, RecursionError):
        raise _TryAgainError(f"a response that is no chat completion: {content[:100]!r}", charged=True) from None


def read_completion(body: Any) -> Reply:
    """The answer in a chat completion.

    Raises:
        ValueError: ``body`` is none.
    """
    try:
        choice = body["choices"][0]
        text, cut = choice["message"].get("content"), choice.get("finish_reason") == "length"
        if isinstance(text, list):  # parts, as some servers answer
            text = "".join(part.get("text") or "" for part in text)
        usage = body.get("usage") or {}
        counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no chat completion") from None
    good = isinstance(text, (str, type(None))) and all(_is_count(c) or c is None for c in counts) and _is_count(cached)
    if not good:
        raise ValueError("no chat completion")
    return Reply(text or "", counts[0], counts[1], cached, cut)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
