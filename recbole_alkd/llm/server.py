"""One OpenAI-compatible server: its connection, the form of request that it takes, and how it fares.

The `openai` client does the HTTP (with its own retries switched off). What a server's refusal means is read
in ``refusals.py``, what it answers in ``replies.py``, what models it says it has in ``listing_of``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_alkd.llm.api_key import one_line, strike
from recbole_alkd.llm.body_limit import HEADERS, limit_body
from recbole_alkd.llm.messages import sendable, without_system
from recbole_alkd.llm.refusals import RefusedError, Status, TryAgainError
from recbole_alkd.llm.replies import NoAnswerError, Reply, lenient_json, read_content
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, str]]
Listing = dict[str, Mapping[str, Any]]  # the name of a model -> what its server says of it


class Server:
    """A model behind one server. To be used inside of one event loop.

    Args:
        model, url, key: who is asked; ``key`` None: the server needs none.
        timeout: seconds for one try, from sending to the last byte.

    Attributes:
        answered: whether it has answered any request.
        flying: requests to it that are in flight.
        held_until: until when (``time.monotonic``) it wants no request, as it said (429).
    """

    def __init__(self, model: str, url: str, key: str | None, timeout: float) -> None:
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
        self._model, self.url, self._timeout, self._key = model, url, timeout, key
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=url,
            timeout=timeout,
            max_retries=0,
            default_headers=HEADERS,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [limit_body()]}),
        )
        self._fields: dict[str, Any] = {"temperature": 0}
        self._takes_system = True
        # every server knows this name; OpenAI's newer models want another and say so
        self._limit = "max_tokens"
        self.answered = False
        self.flying, self.held_until = 0, 0.0

    async def close(self) -> None:
        await self._client.close()

    def strike(self, text: str) -> str:
        """``text`` without the API key: servers repeat it."""
        return strike(text, self._key)

    async def send(self, messages: Messages, max_tokens: int) -> Reply:
        """One try to get the model's answer; one without text where it cannot be read.

        Raises:
            TryAgainError: a problem that may pass.
            RefusedError: the server refuses this request.
            AlkdError: the server can answer no request.
        """
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
        self.flying += 1
        try:
            # the client's own timeout starts anew with every byte
            response = await asyncio.wait_for(
                self._client.chat.completions.with_raw_response.create(**body), self._timeout
            )
            reply = read_content(response.content)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            raise TryAgainError(f"no answer within {self._timeout:g} s (llm_timeout)", charged=True) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            never_left = type(cause).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout")
            words = one_line(self.strike(f"{error} {cause or ''}"))
            raise TryAgainError(words, charged=not never_left, nobody_there=never_left) from None
        except NoAnswerError as error:
            raise TryAgainError(one_line(self.strike(str(error))), charged=True) from None
        except openai.APIStatusError as error:
            raise self._status_problem(Status.of(error, self.strike), body) from None
        finally:
            self.flying -= 1
        self.answered = self.answered or reply.readable
        return reply

    async def listing(self, timeout: float) -> Listing | None:
        """The models that it says it has (``GET /models``); None: it is there and does not say.

        Raises:
            AlkdError: it does not accept the key.
            ConnectionError: it cannot be reached within ``timeout`` seconds, or is in trouble.
        """
        openai = self._openai
        try:
            response = await asyncio.wait_for(self._client.models.with_raw_response.list(), timeout)
            return listing_of(response.content)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            raise ConnectionError(f"no answer within {timeout:g} s") from None
        except openai.APIConnectionError as error:
            words = f"{error} {error.__cause__ or ''}"
            raise ConnectionError(one_line(self.strike(words))) from None
        except openai.APIStatusError as error:
            status = Status.of(error, self.strike)
            if status.is_wrong_key:
                raise self._wrong_key(status) from None
            if status.code >= 500 and status.code != 501:
                raise ConnectionError(str(status)) from None
            return None

    def _wrong_key(self, status: Status) -> AlkdError:
        # the server's words can hold a part of the key
        return AlkdError(
            f"llm_api_key_env: {self.url} does not accept the key in that variable ({status.code})"
        )

    def _status_problem(self, status: Status, sent: Mapping[str, Any]) -> Exception:
        if status.is_form and self._adapt(status, sent):
            return TryAgainError(str(status), False, pause=0.0, put_off=True)
        if status.is_wrong_key:
            return self._wrong_key(status)
        if (status.is_own or (status.code == 403 and self.answered)) and (
            self.answered or not status.is_general
        ):
            return RefusedError(str(status), certain=status.is_certain)
        if status.passes:
            return TryAgainError(str(status), False, status.pause, put_off=status.code == 429)
        return AlkdError(
            f"llm_teacher: {self.url} refuses requests to the model {self._model!r} ({status.code}): "
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


def listing_of(content: bytes) -> Listing | None:
    """The models in the body of an answer to ``GET /models``; None where it has no such list."""
    body = lenient_json(content.decode("utf-8", "replace"))
    models = body.get("data") if isinstance(body, dict) else None
    if not isinstance(models, list):
        return None
    return {one["id"]: one for one in models if isinstance(one, dict) and isinstance(one.get("id"), str)}
