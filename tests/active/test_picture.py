from __future__ import annotations

import errno
import os
import sys

import numpy as np
import pytest

from recbole_alkd.active.picture import draw_selection
from recbole_alkd.settings.error import AlkdError


@pytest.mark.parametrize("log_p", [None, -np.log(np.arange(1.0, 41.0))])
def test_a_picture_is_written(tmp_path, log_p):
    pytest.importorskip("matplotlib", reason="the extra `bench`")
    file = draw_selection(tmp_path / "picks.png", np.linspace(-1, 0, 40), log_p, np.arange(7), "value 1e-3")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_format_is_named(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `bench`")
    with pytest.raises(AlkdError, match=r"picks\.nonsense"):
        draw_selection(tmp_path / "picks.nonsense", np.arange(4.0), None, np.arange(2))


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AlkdError, match="recbole_alkd\\[bench\\]"):
        draw_selection(tmp_path / "picks.png", np.arange(4.0), None, np.arange(2))


def test_a_full_disk_is_named_in_a_line(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure", reason="the extra `bench`")

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(figure.Figure, "savefig", full)
    with pytest.raises(AlkdError, match=r"picks\.png: the picture cannot be written: No space left"):
        draw_selection(tmp_path / "picks.png", np.arange(4.0), None, np.arange(2))
    assert not list(tmp_path.iterdir())
