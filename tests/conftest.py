"""Fixtures that every test folder may use."""

import logging
import signal
from pathlib import Path

import pytest
from tiny import write_benchmark

# a shell starts its background jobs with Ctrl-C ignored, and tests of Ctrl-C would wait for ever
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RecBole's ``data_path`` with the data set ``tiny`` in it (see ``tiny.py``)."""
    return write_benchmark(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _root_logger_as_it_begins():
    """A run sets the level of the root logger for the whole process; the next test must not depend on it."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(logging.WARNING)
