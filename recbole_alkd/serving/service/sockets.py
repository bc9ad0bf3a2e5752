"""The sockets on which the workers of the service listen."""

from __future__ import annotations

import socket
from typing import Any

from recbole_alkd.settings.error import AlkdError


def listening_sockets(host: str, port: int, workers: int) -> list[socket.socket]:
    """A listening socket for every worker, all of one address: the kernel gives each an equal share of the
    connections.

    Raises:
        AlkdError: an address that cannot be had.
    """
    try:
        if not 0 <= port < 1 << 16:
            raise OverflowError("not the number of a port")
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, address = resolved[0], resolved[4]
        # an address that another program has is refused, also to a share of it
        probe = _bound(family, address, share=False)
        if workers == 1:
            return [probe]
        if not hasattr(socket, "SO_REUSEPORT"):
            return [probe, *(probe.dup() for _ in range(workers - 1))]
        address = (address[0], probe.getsockname()[1], *address[2:])
        probe.close()
        return [_bound(family, address, share=True) for _ in range(workers)]
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or error
        raise AlkdError(
            f"--host {host} --port {port}: {words}; allowed: a free port of this machine, 0 for any"
        ) from None


def _bound(family: int, address: Any, share: bool) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(2048)
    except BaseException:
        sock.close()
        raise
    return sock
