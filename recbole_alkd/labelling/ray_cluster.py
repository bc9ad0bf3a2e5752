"""What is looked at before Ray is used: whether it can be here, and whether anybody is at an address."""

from __future__ import annotations

import importlib.util
import socket
import sys

from recbole_alkd.settings.error import AlkdError

OLDEST = (2, 49)
OLDEST_PYTHON = (3, 12)


def check_ray(python: tuple[int, ...] = sys.version_info[:3]) -> None:
    """Whether Ray can be used here.

    Raises:
        AlkdError: Python or Ray is too old, or Ray is not installed.
    """
    if python[:2] < OLDEST_PYTHON:
        raise AlkdError(
            f"label_engine: 'ray' needs Python 3.12 or later, this is {'.'.join(map(str, python))}: below it "
            "RecBole 1.2.1 keeps Ray at 2.6.3 or older; allowed here: local"
        )
    if importlib.util.find_spec("ray") is None:
        raise AlkdError("label_engine: 'ray' needs the ray package: pip install 'recbole_alkd[ray]'")
    import ray

    version = ray.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise AlkdError(
            f"label_engine: 'ray' needs Ray 2.49 or later, this is {version}: pip install 'recbole_alkd[ray]'"
        )


def look_for(address: str) -> None:
    """AlkdError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass
    except OSError as error:
        raise AlkdError(f"ray_address: {address!r}: no cluster there: {error.strerror or error}") from None
