"""Many requests side by side: ``llm_concurrency`` of them are in flight, and an answer is given as soon as it
is there."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from recbole_alkd.llm.refusals import NoReplyError, RefusedError
from recbole_alkd.teacher.api.exchange import Exchange
from recbole_alkd.teacher.records import Answer, Asking, Instance

logger = logging.getLogger(__name__)
# an answer, and what is set when it is stored; None: all of them are there
Answers: TypeAlias = "queue.SimpleQueue[tuple[Instance, Answer, asyncio.Event] | None]"


@dataclass
class Held:
    """Requests that the server refused, until it has answered one; ``last``: the last that was given up."""

    refused: list[tuple[Instance, RefusedError]] = field(default_factory=list)
    last: NoReplyError | None = None

    def doubt(self, has_answered: Callable[[], bool]) -> NoReplyError | None:
        """Why the server may be one that answers nothing; None where it is not."""
        why = next((refusal for _, refusal in self.refused if not refusal.certain), self.last)
        return None if why is None or has_answered() else why


class Flight:
    """The requests about some instances.

    The next request leaves when an answer is stored: where the store must wait, so does the asking, and never
    more than ``concurrency`` answers are at risk.

    Args:
        exchange: to the server; it has been started.
        answer: asks about one instance. RefusedError, NoReplyError: there is no answer.
        concurrency: requests that are in flight at the same time.
    """

    def __init__(
        self, exchange: Exchange, answer: Callable[[Instance, Asking], Awaitable[Answer]], concurrency: int
    ) -> None:
        self._exchange, self._answer, self._concurrency = exchange, answer, concurrency

    def groups(
        self, instances: Sequence[Instance], asking: Asking
    ) -> Iterator[list[tuple[Instance, Answer]]]:
        """The answers, those together that are there at the same moment.
        What ended the asking is raised behind them."""
        loop = self._exchange.loop
        assert loop is not None
        answers: Answers = queue.SimpleQueue()
        job = asyncio.run_coroutine_threadsafe(self._ask_all(instances, asking, answers), loop)
        ended = False
        try:
            while not ended:
                group = [answers.get(), *(answers.get() for _ in range(answers.qsize()))]
                ended = group[-1] is None  # nothing comes behind it
                answered = [one for one in group if one is not None]
                yield [(instance, answer) for instance, answer, _ in answered]
                for *_, stored in answered:
                    loop.call_soon_threadsafe(stored.set)
            job.result()  # raises what ended it
        finally:
            if not ended:
                job.cancel()
                while answers.get() is not None:
                    pass

    async def _ask_all(self, instances: Sequence[Instance], asking: Asking, answers: Answers) -> None:
        client, nothing = self._exchange.client, self._exchange.nothing
        assert client is not None
        waiting, held = deque(instances), Held()

        async def work() -> None:
            try:
                while waiting and not client.stopped:
                    instance = waiting.popleft()
                    if not await asyncio.to_thread(asking.may_send, instance):
                        continue
                    try:
                        answer = await self._answer(instance, asking)
                    except RefusedError as refusal:
                        held.refused.append((instance, refusal))
                        continue
                    except NoReplyError as error:
                        logger.warning("session %s: no label: %s", instance.session, error)
                        held.last = error if error.given_up else held.last
                        answer = Answer((), raw=str(error), usd=nothing, status="unanswered")
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
                answer = Answer((), raw=str(refusal), usd=nothing, status="failed")
                answers.put((instance, answer, asyncio.Event()))  # it cost nothing: nobody waits for it
            held.refused.clear()

        try:
            ends = await asyncio.gather(*(work() for _ in range(self._concurrency)), return_exceptions=True)
            if client.answered:
                release()
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            if client.stopped:
                return
            client.check_end()
            why = None if client.answered else held.doubt(asking.has_answered)
            if why is not None:
                raise client.refuses(why)
            release()
        finally:
            answers.put(None)
