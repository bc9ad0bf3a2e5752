"""Whether an adapter is used: one that does not beat the plain LLM is kept, and labels are the latter's."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_lora import adapter_of, examples, teacher
from tiny_llm import tiny_llm

from recbole_alkd.teacher.base import Instance
from recbole_alkd.teacher.local import lora


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


LEARNS = {"made": 160, "wanted": 160, "lora_learning_rate": 2e-2}
LEARNS_NOTHING = {"made": 8, "wanted": 8, "lora_learning_rate": 1e-12}


def natural(count, seed=9):
    return [replace(e, natural=True) for e in examples(count, seed)]


def labelled(one, path, count=5):
    """Labels of ``count`` sessions from the store at ``path``, where an adapter may be decided on first."""
    from recbole_alkd.labelling.collect import collect_labels
    from recbole_alkd.labels import Budget, LabelStore

    asked = [Instance(k, str(k), e.history, e.candidates) for k, e in enumerate(examples(count, seed=5))]
    with LabelStore(path) as store:
        return collect_labels(one, asked, store, Budget(labels=count), show_progress=False)


def test_an_adapter_that_does_not_beat_the_plain_llm_is_not_used_and_labels_are_the_plain_ones(
    model, tmp_path, caplog
):
    caplog.set_level("INFO")
    store = tmp_path / "labels.sqlite"
    refused = teacher(model, tmp_path, **LEARNS_NOTHING, held_out=natural(20))
    assert refused.open_identity
    made = labelled(refused, store)
    report = refused.lora_report
    assert (report["better"], report["used"]) == (False, False)
    low, high = report["ranks"]["mrr_gain_interval"]
    assert low <= report["ranks"]["mrr_gain"] <= high and low <= 0
    assert "the adapter is not used: it does not beat the LLM without it" in caplog.text
    plain = teacher(model, tmp_path, lora=False)
    assert refused.identity == plain.identity and "adapter:none" in refused.identity
    again = labelled(plain, store)  # the plain LLM's run finds them
    assert (made.bill.asked, again.bill.asked, again.bill.reused) == (5, 0, 5)
    assert {row: label.raw for row, label in again.labels.items()} == {
        row: label.raw for row, label in made.labels.items()
    }
    # the next run knows, before it loads anything, and says what was decided
    later = teacher(model, tmp_path, **LEARNS_NOTHING, held_out=natural(20))
    assert not later.open_identity
    assert labelled(later, store).bill.asked == 0
    assert later.lora_report["used"] is False and later.lora_report["reused"] is True
    # the same adapter, wanted all the same
    always = teacher(model, tmp_path, **LEARNS_NOTHING, held_out=natural(20), lora_use="always")
    assert labelled(always, store).bill.asked == 5
    assert always.lora_report["used"] is True and "adapter:none" not in always.identity


def test_an_adapter_that_beats_the_plain_llm_is_used(model, tmp_path):
    store = tmp_path / "labels.sqlite"
    one = teacher(model, tmp_path, **LEARNS, held_out=natural(40))
    hoped = one.identity
    made = labelled(one, store)
    assert one.lora_report["better"] is True and one.lora_report["used"] is True
    assert one.identity == hoped and "adapter:none" not in hoped
    again = labelled(teacher(model, tmp_path, **LEARNS, held_out=natural(40)), store)
    assert (made.bill.asked, again.bill.asked) == (5, 0)


def test_where_the_store_has_all_labels_nothing_is_trained_to_decide(model, tmp_path):
    import shutil

    store = tmp_path / "labels.sqlite"
    labelled(teacher(model, tmp_path, **LEARNS, held_out=natural(40)), store)
    shutil.rmtree(tmp_path / "alkd_labels" / "adapters")  # a store that was copied without its adapters
    one = teacher(model, tmp_path, **LEARNS, held_out=natural(40))
    assert one.open_identity
    assert labelled(one, store).bill.asked == 0
    assert one.open_identity and one.lora_report is None


def test_an_adapter_that_nothing_can_judge_is_not_used(model, tmp_path, caplog):
    one = teacher(model, tmp_path, **LEARNS_NOTHING, lora_held_out=12)  # wanted, and none were found
    one.prepare()
    assert one.lora_report["ranks"] is None and one.lora_report["used"] is False
    assert "there is no example to judge it by" in caplog.text
    free = teacher(model, tmp_path, **LEARNS_NOTHING, lora_held_out=0)
    free.prepare()
    assert free.lora_report["better"] is None and free.lora_report["used"] is True


def test_an_adapter_of_an_earlier_version_is_used_as_it_was(model, tmp_path):
    made = teacher(model, tmp_path, lora_held_out=None, lora_inserted=True, lora_use="always")
    made.prepare()
    file = Path(adapter_of(made)) / lora.REPORT
    report = json.loads(file.read_text())
    new = ("lora_scale", "lora_inserted", "lora_candidates", "lora_held_out", "lora_use")
    report["settings"] = {key: value for key, value in report["settings"].items() if key not in new}
    for key in ("better", "scale", "scale_start", "loss_start"):
        del report[key]
    file.write_text(json.dumps(report))
    later = teacher(model, tmp_path, made=0, lora_scale="learnt", lora_held_out=None, lora_inserted=True)
    assert later.identity == made.identity
    later.prepare()
    assert later.lora_report["used"] is True and later.lora_report["reused"] is True
    # one that this version trained with a fixed scale is another one than a learnt scale asks for
    other = teacher(model, tmp_path / "other", lora_held_out=None, lora_inserted=True, lora_use="always")
    other.prepare()
    assert (
        teacher(
            model, tmp_path / "other", lora_scale="learnt", lora_held_out=None, lora_inserted=True
        ).identity
        != other.identity
    )


def test_the_gain_and_its_interval_are_those_of_the_same_sessions(model, tmp_path):
    from recbole_alkd.statistics import paired_difference
    from recbole_alkd.teacher.local.judging import compare

    before, after = np.array([1.0, 2, 6, 4, 3]), np.array([1.0, 1, 3, 5, 12])
    compared = compare(before, after, [12] * 5)
    assert compared["mrr_gain"] == pytest.approx(np.mean(1 / after) - np.mean(1 / before))
    assert compared["mrr_gain_interval"] == list(paired_difference(1 / after, 1 / before)[1:3])
    assert compared["ndcg10_after"] == pytest.approx((2 + 1 / 2 + 1 / np.log2(6)) / 5)
