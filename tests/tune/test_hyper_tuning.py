"""RecBole's own HyperTuning beside today's hyperopt and numpy: every algorithm ends."""

from __future__ import annotations

import sys

import pytest
from recbole.trainer import HyperTuning

import recbole_alkd  # noqa: F401
from recbole_alkd.settings.error import AlkdError


def objective(config_dict=None, config_file_list=None):
    score = float(config_dict["a"]) - float(config_dict.get("b", 0))
    return {
        "model": "M", "best_valid_score": score, "valid_score_bigger": True,
        "best_valid_result": {"mrr@10": score}, "test_result": {"mrr@10": score},
    }  # fmt: skip


@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_a_search_ends_with_the_best_settings(tmp_path, algo):
    pytest.importorskip("hyperopt")
    (tmp_path / "space.hyper").write_text("a choice [1, 2, 3]\nb choice [0, 5]\n")
    search = HyperTuning(
        objective, params_file=str(tmp_path / "space.hyper"), algo=algo, max_evals=12, early_stop=20,
        display_file=str(tmp_path / "search.html"),
    )  # fmt: skip
    search.run()
    search.export_result(output_file=str(tmp_path / "result.txt"))
    assert "mrr@10" in (tmp_path / "result.txt").read_text()
    assert (tmp_path / "search.html").stat().st_size > 0
    if algo == "exhaustive":
        assert search.best_score == 3 and len(search.params2result) == 6, "each of the six once"


def test_a_hyperopt_without_pkg_resources_is_named(monkeypatch, tmp_path):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'pkg_resources'", name="pkg_resources")

    class Finder:
        find_spec = staticmethod(lambda name, *_: missing() if name == "hyperopt" else None)

    for name in [name for name in sys.modules if name.split(".")[0] == "hyperopt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    (tmp_path / "space.hyper").write_text("a choice [1, 2]\n")
    with pytest.raises(AlkdError, match=r"pip install 'hyperopt>=0\.3'"):
        HyperTuning(objective, params_file=str(tmp_path / "space.hyper"), algo="bayes")
