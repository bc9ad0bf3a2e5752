"""The one error that is meant for users, and where in a run an error came up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class AlkdError(ValueError):
    """Something a user can fix: one line that names the value, where it stands, and what is allowed."""


class ToldError(RuntimeError):
    """How a process of this run ended, which has put it into words already. ``code``: the exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


@contextlib.contextmanager
def during(what: str) -> Iterator[None]:
    """An error that comes up inside of this knows ``what`` was going on (``what_went_on``);
    the innermost name counts."""
    try:
        yield
    except Exception as error:
        if what_went_on(error) is None:
            with contextlib.suppress(AttributeError):  # an error with slots
                error.alkd_during = what  # type: ignore[attr-defined]
        raise


def what_went_on(error: BaseException) -> str | None:
    """The part of a run in which ``error`` came up, if that is known."""
    return getattr(error, "alkd_during", None)
