"""Several servers of one model: which one is asked next, which is left out, and whether they have the same
model.

The next request goes to the server with the fewest in flight. A server that cannot be connected to, that
fails ``FAILURES`` requests in a row, or that misses two health probes (``GET /models``) is left out: no
request is sent to it, those in flight come to their end, and what they did not answer is asked elsewhere. A
probe that is answered brings it back.

Label keys hold the name of the model and not who answered, so the servers must have the same model. What is
checked of that, before the first request and again of a server that comes back: see ``check_same``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_alkd.llm.refusals import TryAgainError
from recbole_alkd.llm.server import Listing, Server
from recbole_alkd.settings.error import AlkdError

logger = logging.getLogger(__name__)

PROBE_EVERY = 5.0  # seconds; doubled each time a server is left out again, up to LONGEST_OUT
PROBE_TIMEOUT = 5.0
LONGEST_OUT = 60.0
FAILURES = 3  # requests in a row that fail for other reasons than a missing connection
MISSED = 2  # probes in a row
# what llama.cpp says of a model's weights, whatever the file is called
_META = ("n_params", "n_vocab", "n_embd", "size")


@dataclass
class _Member:
    """How one of several servers fares. ``out``: why it is left out; None: it is not."""

    server: Server
    asked: int = 0
    failures: int = 0
    missed: int = 0
    out: str | None = None
    times_out: int = 0  # since it last answered a request


class Servers:
    """The servers of ``model``. Of a single one nothing is probed and nothing checked: it is always asked.

    Args:
        servers: at least one, with different addresses.
    """

    def __init__(self, servers: Sequence[Server], model: str) -> None:
        self._members = [_Member(server) for server in servers]
        self._model = model
        self._tasks: list[asyncio.Task[None]] = []
        self._reference: tuple[Server, Listing] | None = None

    @property
    def words(self) -> str:
        """Their addresses."""
        return " and ".join(member.server.url for member in self._members)

    @property
    def answered(self) -> bool:
        """Whether any of them has answered a request."""
        return any(member.server.answered for member in self._members)

    @property
    def several(self) -> bool:
        return len(self._members) > 1

    async def start(self) -> None:
        """Look whether several servers have the same model, and begin to watch them.

        Raises:
            AlkdError: they do not, or one does not accept the key.
        """
        if not self.several:
            return
        unknown = []
        listings = await asyncio.gather(
            *(member.server.listing(PROBE_TIMEOUT) for member in self._members), return_exceptions=True
        )
        for member, listing in zip(self._members, listings, strict=True):
            if isinstance(listing, ConnectionError):
                self._leave_out(member, str(listing))
            elif isinstance(listing, BaseException):
                raise listing
            elif not listing:
                unknown.append(member.server.url)
            else:
                self._compare(member.server, listing)
        if unknown:
            logger.warning(
                "llm_base_url: %s: no list of models (GET /models); that the model %r is the same there as "
                "elsewhere cannot be checked",
                " and ".join(unknown),
                self._model,
            )
        self._tasks = [asyncio.create_task(self._watch(member)) for member in self._members]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._members:
            await member.server.close()

    def best(self, now: float) -> Server:
        """Who is asked next: of those that are not left out the one with the fewest requests in flight, one
        that is held back (429) only where all are. Where all are left out, any of them."""
        there = [member for member in self._members if member.out is None] or self._members

        def order(member: _Member) -> tuple[float, int, int]:
            return max(0.0, member.server.held_until - now), member.server.flying, member.asked

        return min(there, key=order).server

    def sent(self, server: Server) -> None:
        """Take note that a request leaves for ``server``."""
        self._member(server).asked += 1

    def fared(self, server: Server, problem: TryAgainError | None) -> None:
        """Take note of how a request to ``server`` ended; None: it was answered."""
        member = self._member(server)
        if problem is None:
            member.failures = member.missed = member.times_out = 0
            if member.out is not None:
                self._take_back(member)
        elif not problem.put_off:
            member.failures += 1
            if self.several and (problem.nobody_there or member.failures >= FAILURES):
                self._leave_out(member, str(problem))

    def others_are_in(self, server: Server) -> bool:
        """Whether a request that ``server`` has not answered can be sent to another one at once."""
        return any(member.out is None and member.server is not server for member in self._members)

    def _member(self, server: Server) -> _Member:
        return next(member for member in self._members if member.server is server)

    def _leave_out(self, member: _Member, why: str) -> None:
        if member.out is None:
            member.times_out += 1
            logger.warning(
                "llm_base_url: %s is left out (%s); it is asked now and then whether it is back",
                member.server.url,
                why,
            )
        member.out = why

    def _take_back(self, member: _Member) -> None:
        member.out, member.failures, member.missed = None, 0, 0
        logger.info("llm_base_url: %s is back", member.server.url)

    async def _watch(self, member: _Member) -> None:
        """Probe one server for as long as the others are asked."""
        while True:
            longer = 2 ** max(0, member.times_out - 1) if member.out is not None else 1
            await asyncio.sleep(min(LONGEST_OUT, PROBE_EVERY * longer))
            try:
                listing = await member.server.listing(PROBE_TIMEOUT)
                if member.out is not None and listing:
                    self._compare(member.server, listing)
            except ConnectionError as error:
                member.missed += 1
                if member.missed >= MISSED:
                    self._leave_out(member, f"health probe: {error}")
            except AlkdError as error:  # another model, or a key that is not accepted any more
                self._leave_out(member, str(error))
            else:
                member.missed = 0
                if member.out is not None:
                    self._take_back(member)

    def _compare(self, server: Server, listing: Listing) -> None:
        if self._reference is None:
            self._reference = server, listing
        else:
            check_same(self._model, self._reference[0].url, self._reference[1], server.url, listing)


def check_same(model: str, url: str, listing: Listing, other_url: str, other: Listing) -> None:
    """Look whether two servers have the same model, as far as their lists of models say.

    Either both list ``model``, or neither does and both list the same names (servers such as llama.cpp take
    any name). Where both say how many parameters it has, or its vocabulary, width or bytes, these are equal
    too. Weights are not compared.

    Raises:
        AlkdError: they have not.
    """
    named, other_named = model in listing, model in other
    if named != other_named or (not named and set(listing) != set(other)):
        raise AlkdError(
            f"llm_base_url: {url} and {other_url} must have the same model, llm_model {model!r}; "
            f"they list {_names(listing)} and {_names(other)}"
        )
    pairs = [(listing[model], other[model])] if named else [(listing[name], other[name]) for name in listing]
    for one, two in pairs:
        facts, other_facts = (side.get("meta") for side in (one, two))
        if not isinstance(facts, Mapping) or not isinstance(other_facts, Mapping):
            continue
        for key in _META:
            here, there = facts.get(key), other_facts.get(key)
            if _is_number(here) and _is_number(there) and here != there:
                raise AlkdError(
                    f"llm_base_url: {url} and {other_url} must have the same model, llm_model {model!r}; "
                    f"its {key} is {here} and {there}"
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(listing: Listing) -> str:
    names = sorted(listing)
    shown = ", ".join(repr(name[:80]) for name in names[:5])
    return (shown + (", ..." if len(names) > 5 else "")) or "none"
