"""uvicorn's HTTP protocol with bounds on what a client may leave open: a head without end, a body that
trickles, an answer that is not taken, more connections than were meant.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from recbole_alkd.serving.service.limits import Limits

_REST = 1.0  # seconds for which an idle connection is still answered after the service was told to stop


class Connection(HttpToolsProtocol):
    """A connection of a client.

    Args:
        limits: the bounds; the others are uvicorn's.
    """

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._arriving: asyncio.TimerHandle | None = None  # runs out unless the request is whole before
        self._taking: asyncio.TimerHandle | None = None  # runs out unless the answer is taken before
        self._head = 0  # bytes of a head that is not whole
        self._in_head, self._heads = True, 0  # heads: how many were whole
        self._stopping = False
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, f"connections: more than {self._limits.connections} are not allowed")
            return
        self._arriving = self.loop.call_later(self._limits.seconds, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        if self._taking is not None:
            self._taking.cancel()
        self._give_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        begun, heads = self._in_head, self._heads
        super().data_received(data)
        if begun and self._in_head and heads == self._heads:
            self._head += len(data)
        if self._head > self._limits.head and not self.transport.is_closing():
            self._refuse(431, f"head: more than {self._limits.head:,} bytes are not allowed")

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent all it wants to may still wait for its answer."""
        waits = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if waits:
            self.cycle.keep_alive = False
        return waits

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._arriving is None:
            self._arriving = self.loop.call_later(self._limits.seconds, self._too_late)

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        self._heads += 1
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._stop_clock()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Answer what is there and, for a moment, what is on its way;
        each answer says that the connection ends."""
        self._stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_REST, super().shutdown)
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self._limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, as uvicorn found it."""
        if not self.transport.is_closing():
            self._refuse(400, "request: not readable as HTTP/1.1")

    def _too_late(self) -> None:
        self._arriving = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            # an earlier request of this connection is being answered, so that this one could not arrive
            self._arriving = self.loop.call_later(self._limits.seconds, self._too_late)
            return
        self._refuse(408, f"request: not whole after {self._limits.seconds:g} seconds")

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, and close."""
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            content = msgspec.json.encode({"error": message})
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + content)
        self._give_up()
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _give_up(self) -> None:
        """Requests that came one after the other without waiting are not answered any more:
        uvicorn itself tells the last alone."""
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    def _stop_clock(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
