"""Whose files are read in full trust, here and now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
trusted: ContextVar[bool] = ContextVar("trusted", default=False)
# a checkpoint, whose Config is somebody's word
opening: ContextVar[bool] = ContextVar("opening", default=False)


@contextlib.contextmanager
def trusted_loads() -> Iterator[None]:
    """Inside of this RecBole's own torch.load calls read any checkpoint.
    Only on the user's word that the file is theirs.

    torch.load looks at this variable when it is called, and RecBole's calls leave ``weights_only`` open.
    """
    before = os.environ.get(_UNSAFE)
    os.environ[_UNSAFE] = "1"
    token = trusted.set(True)
    try:
        yield
    finally:
        trusted.reset(token)
        os.environ.pop(_UNSAFE)
        if before is not None:
            os.environ[_UNSAFE] = before
