"""Fixtures that every test folder may use."""

from pathlib import Path

import pytest
from tiny import write_benchmark


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RecBole's ``data_path`` with the data set ``tiny`` in it (see ``tiny.py``)."""
    return write_benchmark(tmp_path_factory.mktemp("data"))
