"""Ctrl-C while an LLM is asked: the first one waits for the answers that are on their way,
the second one does not."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class Interrupt:
    """While it is entered, the first Ctrl-C is only noted, so that an answer is never lost between the LLM
    and the store.

    The second one is a KeyboardInterrupt, as is every one outside of the main thread,
    where signals cannot be caught.

    Attributes:
        came: whether there was one. more_to_come: what ``stop``, which was called then, returned.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.came = self.more_to_come = False
        self._stop = stop
        self._before: Any = None

    def end(self) -> None:
        """End the asking for another reason than Ctrl-C: nothing more is sent,
        and what is on its way is waited for."""
        self.came = True
        self.more_to_come = self._stop()

    def _note(self, number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, self._before)
        self.end()
        logger.warning(
            "interrupted: waiting for the answers that are on their way; press Ctrl-C again to leave them"
        )

    def __enter__(self) -> Interrupt:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is not None
        ):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
