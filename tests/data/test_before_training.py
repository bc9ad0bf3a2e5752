"""What only the data tell is told before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from recbole.trainer import Trainer
from session_files import write_inter
from test_click_files import some_clicks

from recbole_alkd import AlkdError, run_recbole_alkd
from recbole_alkd.quick_start import label_instances, select_instances

SMALL = {
    "data_path": "data", "session_min_length": 2, "topk": [3, 5], "valid_metric": "NDCG@5", "epochs": 1,
    "show_progress": False,
    "state": "ERROR", "use_gpu": False, "budget_labels": 2, "llm_candidates": 5, "llm_top_n": 3,
}  # fmt: skip
API = {"llm_teacher": "api", "llm_base_url": "http://127.0.0.1:9/v1", "llm_model": "m"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_inter(tmp_path / "data" / "mine" / "mine.inter", some_clicks(1))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_train_epoch", lambda *_, **__: pytest.fail("trained"))


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (None, API, r"mine\.item: no such file"),
        (
            None,
            {"llm_teacher": "recommender", "llm_candidates": 8},
            "llm_candidates: 8 is more than the [1-7] items outside a session",
        ),
        (
            ["i0.0\tA", "i1.0\tB"],
            API,
            r"it has a title for none of the 9 items of the clicks, whose ids are i\d.*but for a '\.0' at "
            r"the end",
        ),
        (
            ["x\tA"],
            {"llm_teacher": "null", "item_text": "tfidf", "item_text_loss": "text_pairs"},
            "it has a title for none of the 9",
        ),
        (
            ["i0\tA"],
            {"llm_teacher": "null", "topk": [5, 10], "valid_metric": "NDCG@10"},
            "topk: 10 is more than the 9 items of mine",
        ),
    ],
)
def test_a_run_ends_before_it_begins(
    untrained: None, lines: list[str] | None, settings: dict, message: str
) -> None:
    if lines:
        Path("data/mine/mine.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *lines]) + "\n")
    with pytest.raises(AlkdError, match=message):
        run_recbole_alkd(dataset="mine", config_dict={**SMALL, **settings})


def test_a_counting_model_of_its_own_looks_at_the_catalogue() -> None:
    with pytest.raises(AlkdError, match="topk: 10 is more than the 9 items"):
        run_recbole_alkd("SessionKNN", "mine", config_dict={**SMALL, "topk": [10], "valid_metric": "NDCG@10"})


def test_selecting_needs_no_titles(tmp_path: Path) -> None:
    picks = select_instances("picks.json", "mine", config_dict={**SMALL, **API})["picks"]
    assert len(picks) == 2
    with pytest.raises(AlkdError, match=r"mine\.item: no such file"):
        label_instances("mine", config_dict={**SMALL, **API}, dry_run=True)
