"""Results of small runs are what they were: metrics, selections, label keys, weights (``expected.json``).

The cases are in ``golden_runs.py``. Where a change of results is meant, and only there,
``python tests/golden/golden_runs.py --write [CASE ...]`` makes the entries anew; the changelog then says what
changed.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from golden_runs import (
    LOSSES,
    OTHERS,
    POLICIES,
    SAME,
    STUDENTS,
    all_cases,
    differences,
    home,
    read_expected,
    run_case,
)

from recbole_alkd.registry import backbones, losses, policies, teachers

CASES = all_cases()
BUILT_IN = tuple(teachers)  # before any test registers one of its own


@pytest.fixture(scope="module")
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for all cases: those with the same teacher recommender or student share it."""
    with home(tmp_path_factory.mktemp("golden") / "home") as folder:
        yield folder


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return read_expected()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * case.slow) for name, case in CASES.items()]
)
def test_a_run_gives_what_it_gave(name: str, working_directory: Path, expected: dict[str, Any]) -> None:
    if CASES[name].needs:
        pytest.importorskip(CASES[name].needs, reason=f"needs the package {CASES[name].needs}")
    lines = differences(run_case(name), expected[name])
    assert not lines, "\n".join([f"{name}:", *lines])


def test_every_case_is_written_down(expected: dict[str, Any]) -> None:
    assert expected.keys() == CASES.keys()


def test_every_registered_name_has_a_case() -> None:
    for cases, registry in (((*STUDENTS, *OTHERS), backbones), (POLICIES, policies), (LOSSES, losses)):
        # plug-ins of other tests stay registered in this process
        shipped = {name for name in registry if registry.get(name).__module__.startswith("recbole_alkd.")}
        assert set(cases) >= shipped > set()
    asked = {case.settings.get("llm_teacher") for case in CASES.values()}
    assert asked >= set(BUILT_IN)


@pytest.mark.parametrize(("killed", "whole"), SAME.items())
def test_a_killed_run_ends_as_the_unbroken_one(killed: str, whole: str, expected: dict[str, Any]) -> None:
    ours, theirs = expected[killed], expected[whole]
    for part in ("stages", "comparisons", "policy", "store", "verdict"):
        assert ours[part] == theirs[part], part


def test_a_difference_is_seen(expected: dict[str, Any]) -> None:
    entry = expected["SessionFPMC x max_min"]
    assert differences(copy.deepcopy(entry), entry) == []

    def spoilt(change: Any) -> list[str]:
        changed = copy.deepcopy(entry)
        change(changed)
        return differences(changed, entry)

    assert spoilt(
        lambda e: e["stages"]["distilled"]["test"].__setitem__(0, e["stages"]["distilled"]["test"][0] + 1e-5)
    )
    assert spoilt(lambda e: e["policy"].update(value=e["policy"]["value"] * 1.00001))
    assert spoilt(lambda e: e["policy"]["picks"].reverse())
    assert spoilt(lambda e: e["labels"].update(asked=11)) == [".labels.asked: 11, not 10"]
    assert spoilt(lambda e: e["labels"].pop("asked")) == [".labels.asked: missing"]
    assert spoilt(lambda e: e["labels"].update(more=1)) == [".labels.more: new"]
    assert spoilt(lambda e: e["store"].pop())
    assert spoilt(lambda e: e["stages"]["student"].update(norm=e["stages"]["student"]["norm"] * (1 + 1e-5)))
    assert not spoilt(
        lambda e: e["stages"]["student"].update(norm=e["stages"]["student"]["norm"] * (1 + 1e-8))
    )
