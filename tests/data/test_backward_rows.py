"""Rows of training sessions that are read from their end, against sessions turned round by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from session_files import token_rows, write_inter


def clicks(sessions: dict[str, str]) -> list[tuple[str, str, int]]:
    return [(name, item, place) for name, items in sessions.items() for place, item in enumerate(items)]


@pytest.mark.parametrize("augmentation", ["prefix", "last"])
def test_they_are_the_rows_of_the_sessions_turned_round(
    tmp_path: Path, config_of, build, augmentation: str
) -> None:
    sessions = {
        f"s{k}": "".join(chr(97 + (k + step * 3) % 20) for step in range(5 + k % 3)) for k in range(10)
    }
    write_inter(tmp_path / "toy" / "toy.inter", clicks(sessions))
    config = config_of("toy", session_window=None, MAX_ITEM_LIST_LENGTH=3, session_augmentation=augmentation)
    train = build(config)[0]
    expected = []
    for session in dict.fromkeys(session for session, _, _ in token_rows(train)):
        turned = sessions[session][::-1]
        first = 1 if augmentation == "prefix" else len(turned) - 1
        expected += [
            (session, list(turned[max(0, end - 3) : end]), turned[end]) for end in range(first, len(turned))
        ]
    rows = train.backward_rows()
    assert token_rows(train.copy(rows)) == expected
    assert set(rows["alkd_row"].tolist()) == {-1}, "no label belongs to them"
    assert (train.inter_feat["alkd_row"] >= 0).all(), "the rows of the part stay as they are"
