"""Spaces of a search: read from two kinds of file, and refused before anything is trained."""

from __future__ import annotations

import math

import pytest

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tune.space import Choice, Range, check_space, combinations, read_space


def space_of(tmp_path, text, name="space.yaml"):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return read_space(str(file))


def test_yaml_has_lists_and_ranges(tmp_path):
    text = "learning_rate: {low: 0.001, high: 0.1, log: True}\nlayers: {low: 1, high: 3}\n"
    text += "sizes: [[1, 2], 3, ~]\nkd_weight: {low: 0, high: 1, step: 0.5}"
    space = space_of(tmp_path, text)
    assert space == {
        "learning_rate": Range(0.001, 0.1, log=True),
        "layers": Range(1, 3, whole=True),
        "sizes": Choice(([1, 2], 3, None)),
        "kd_weight": Range(0, 1, step=0.5),
    }
    assert space["sizes"].labels == ["[1, 2]", "3", "None"]
    assert combinations(space) is None
    del space["learning_rate"]
    assert combinations(space) == 3 * 3 * 3


def test_a_search_file_of_recboles(tmp_path):
    lines = [
        "learning_rate loguniform -8,-2",
        "embedding_size choice [8, 16]",
        "dropout quniform 0,0.4,0.2",
        "x uniform 0,1",
    ]
    space = space_of(tmp_path, "\n".join(lines), "a.hyper")
    assert space["learning_rate"] == Range(math.exp(-8), math.exp(-2), log=True)
    assert space["embedding_size"] == Choice((8, 16))
    assert space["dropout"] == Range(0, 0.4, step=0.2)
    assert space["x"] == Range(0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no setting|mapping of settings"),
        ("- a", "a mapping of settings"),
        ("a: 3", "a list of values, or"),
        ("a: []", "all different, at least one"),
        ("a: [1, 1]", "all different"),
        ("a: ['1', 1]", "all different"),
        ("a: {low: 1}", "a list of values, or"),
        ("a: {low: 3, high: 1}", "low < high"),
        ("a: {low: 0, high: 1, log: True}", "above 0"),
        ("a: {low: 1, high: 9, log: True, step: 2}", "without step"),
        ("a: {low: 1, high: 2, step: 0}", "step above 0"),
        ("a: {low: 1, high: 2, step: 5}", "fits between"),
        ("a: {low: 0, high: .inf}", "both finite"),
        (f"a: {{low: 1, high: 1{'0' * 400}}}", "a list of values, or"),
        ("a: {low: 0.1, high: 0.5, step: 1.0e-320}", "a step above 0 that fits"),
        ("a: {low: True, high: 2}", "a list of values, or"),
        ("a: {low: 1, high: 2, size: 3}", "a list of values, or"),
    ],
)
def test_what_is_no_space_is_refused(tmp_path, text, words):
    with pytest.raises(AlkdError, match=words):
        space_of(tmp_path, text)


def test_settings_are_checked_before_a_trial(tmp_path):
    known = ["learning_rate", "epochs", "seed"]
    check_space({"learning_rate": Range(0.1, 0.2)}, known, {})
    for space, given, words in (
        ({"learning_rat": Choice((1,))}, {}, "did you mean 'learning_rate'"),
        ({"learning_rate": Choice((-1.0,))}, {}, "learning_rate: -1.0 is not allowed"),
        ({"learning_rate": Range(-1.0, 1.0)}, {}, "learning_rate: -1.0 is not allowed"),
        ({"seed": Choice((1, 2))}, {}, "seed is the same in every trial"),
        ({"learning_rate": Choice((0.1,))}, {"learning_rate": "1"}, "also given as --learning_rate"),
        ({"alkd_policy": Choice((3,))}, {}, "alkd_policy"),
    ):
        with pytest.raises(AlkdError, match=words):
            check_space(space, known, given)
