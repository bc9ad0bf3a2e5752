"""What SIGTERM does to a process that holds a run's folder: it leaves by way of its ``finally`` clauses."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def tidily() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` meanwhile, and ends the process as ever once that has passed through.

    Only where a program has no way of its own with SIGTERM, and in its main thread.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows tidies up
        raise Terminated

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
