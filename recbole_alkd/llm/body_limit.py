"""A limit on the size of a response, counted after unpacking: a server can send without end, or a megabyte
that unpacks to a gigabyte.

The body is cut at the limit, which leaves a text that is no JSON: the caller treats it as any other answer
that cannot be read. Works with the HTTP library of the openai package, whichever of httpx and its successors
that is.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

MOST_BYTES = 16 * 2**20
HEADERS = {"Accept-Encoding": "gzip"}  # what is unpacked here


def limit_body(most: int = MOST_BYTES) -> Callable[[Any], Awaitable[None]]:
    """A response hook for the HTTP client."""

    async def hook(response: Any) -> None:
        packed = response.headers.pop("content-encoding", "").strip().lower()
        library = sys.modules[type(response).__module__.partition(".")[0]]
        response.stream = _limited(library.AsyncByteStream)(
            response.stream, packed in ("gzip", "x-gzip", "deflate"), most
        )

    return hook


def _limited(base: type) -> type:
    """The stream class, on the library's own base, which the library asks for."""

    class Limited(base):  # type: ignore[misc]
        def __init__(self, stream: Any, packed: bool, most: int) -> None:
            self._stream, self._packed, self._left = stream, packed, most

        async def __aiter__(self) -> AsyncIterator[bytes]:
            unpacker = _Unpacker() if self._packed else None
            async for chunk in self._stream:
                for part in unpacker.parts(chunk) if unpacker else [chunk]:
                    yield part[: self._left]
                    self._left -= len(part)
                    if self._left <= 0:
                        return

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Limited


class _Unpacker:
    """Unpacks gzip and deflate in parts of limited size; what is neither passes as it came."""

    SIZE = 2**16

    def __init__(self) -> None:
        self._zip: Any = None
        self._raw = False

    def parts(self, data: bytes) -> Iterator[bytes]:
        while data and not self._raw:
            try:
                # 47: gzip or zlib, as the first bytes say
                self._zip = self._zip or zlib.decompressobj(47)
                part = self._zip.decompress(data, self.SIZE)
            except zlib.error:
                self._raw = True
                break
            data = self._zip.unconsumed_tail or self._zip.unused_data
            if self._zip.eof:
                self._zip = None
            if part:
                yield part
        if self._raw and data:
            yield data
