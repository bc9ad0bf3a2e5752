"""Tests that need a GPU: ``pytest -m gpu``. Where there is none they are skipped, with that reason.

``ALKD_TEST_DEVICE=cpu`` runs the same code on the CPU, to see that the tests themselves are in order.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
DEVICE = os.environ.get("ALKD_TEST_DEVICE", "cuda")


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no GPU on this machine")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if DEVICE == "cuda" and not torch.cuda.is_available():
                item.add_marker(skip)


@pytest.fixture(scope="session")
def device() -> str:
    """The device under test."""
    return DEVICE
