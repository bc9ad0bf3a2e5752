"""RecBole's own entry points know ALKDRec after the import, each in a fresh process;
stock models go on working."""

from __future__ import annotations

import json

import pytest
from process import ROOT, fresh, python, run

from recbole_alkd import plugin

SMALL = {
    "epochs": 2, "train_batch_size": 512, "MAX_ITEM_LIST_LENGTH": 5, "show_progress": False, "state": "ERROR",
    "llm_teacher": "recommender", "budget_labels": 20, "llm_candidates": 10, "llm_top_n": 5,
    "session_augmentation": "last",
    "user_inter_num_interval": "[200,inf)",
}  # fmt: skip
STAGES = {"teacher", "student", "student_longer", "distilled"}


def test_the_parts_are_found_by_recboles_own_look_ups():
    import recbole.data.dataset
    from recbole.utils import ModelType, get_model, get_trainer

    from recbole_alkd.data.dataset import ALKDRecDataset
    from recbole_alkd.model.alkdrec import ALKDRec
    from recbole_alkd.trainer import ALKDRecTrainer

    assert get_model("ALKDRec") is ALKDRec
    assert get_trainer(ModelType.SEQUENTIAL, "ALKDRec") is ALKDRecTrainer
    assert recbole.data.dataset.ALKDRecDataset is ALKDRecDataset
    assert get_trainer(ModelType.SEQUENTIAL, "GRU4Rec").__name__ == "Trainer"


def test_register_may_be_called_again():
    from recbole.config import Config

    before = Config._load_cmd_line
    plugin.register()
    assert Config._load_cmd_line is before


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run of every entry point, in one fresh process; what they gave back."""
    folder = tmp_path_factory.mktemp("entry")
    code = f"""
import json
import recbole_alkd
from recbole.config import Config
from recbole.quick_start import load_data_and_model, objective_function, run, run_recbole
from recbole.utils.case_study import full_sort_topk
small = {SMALL!r}
out = {{}}
plain = run_recbole(model="ALKDRec", dataset="ml-100k", config_dict=dict(small))
keys = ("best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
out["run_recbole"] = {{key: plain[key] for key in keys}}
result = recbole_alkd.run_recbole_alkd(dataset="ml-100k", config_dict=dict(small))
out["run_recbole_alkd"] = {{key: value for key, value in result.items() if key != "settings"}}
out["run"] = run("ALKDRec", "ml-100k", config_dict=dict(small))["test_result"]
objective = objective_function(config_dict=dict(small, model="ALKDRec", dataset="ml-100k"))
out["objective_function"] = objective["test_result"]
model_file = result["run_folder"] + "/ALKDRec.pth"
config, model, dataset, train, valid, test = load_data_and_model(model_file)
out["loaded"] = type(model).__name__
out["keys"] = sorted(model.state_dict())
from recbole.utils import get_trainer
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
out["evaluated"] = trainer.evaluate(test, model_file=model_file)
sessions = test.dataset.inter_feat[test.dataset.uid_field][:3].numpy()
scores, items = full_sort_topk(sessions, model, test, k=4)
out["topk"] = list(items.shape)
print("RESULT" + json.dumps(out))
"""
    text = python(code, folder)
    return folder, json.loads(text.split("RESULT")[1])


def test_every_entry_point_gives_the_same_result(ran):
    _, out = ran
    first = out["run_recbole"]["test_result"]
    for name in ("run", "objective_function", "evaluated"):
        assert out[name] == first, name
    assert (
        out["run_recbole_alkd"]["test_result"]
        == first
        == out["run_recbole_alkd"]["stages"]["distilled"]["test"]
    )
    assert out["run_recbole"]["best_valid_result"] == out["run_recbole_alkd"]["stages"]["distilled"]["valid"]
    assert out["run_recbole"]["valid_score_bigger"] is True


def test_the_report_is_complete_and_in_the_run_folder(ran):
    folder, out = ran
    report = out["run_recbole_alkd"]
    assert set(report["stages"]) == STAGES
    for stage in report["stages"].values():
        assert (
            set(stage["valid"])
            == set(stage["test"])
            == {f"{m}@{k}" for m in ("recall", "ndcg", "mrr") for k in (5, 10)}
        )
    assert report["stages"]["distilled"]["best_step"] >= 1
    assert report["stages"]["student_longer"]["steps"] == report["stages"]["distilled"]["steps"]
    labels = report["labels"]
    # the first run asked, this one found the same labels in the store
    assert (labels["asked"], labels["reused"], labels["failed"]) == (0, 20, 0)
    assert report["lora"] is None
    assert {"value", "upper", "gap", "support", "picks"} <= set(report["policy"])
    assert len(report["policy"]["picks"]) == len(set(report["policy"]["picks"])) == 20
    assert 0 < report["policy"]["value"] <= report["policy"]["upper"]
    file = folder / report["run_folder"] / "result.json"
    on_disk = json.loads(file.read_text())
    assert on_disk["stages"] == report["stages"] and on_disk["labels"] == labels
    assert file.parent.parent.name == "saved" and file.parent.name.startswith("ALKDRec-ml-100k-")


def test_the_checkpoint_is_the_plain_student(ran):
    _, out = ran
    assert out["loaded"] == "ALKDRec"
    assert out["keys"] == ["recommender.input_embedding.weight", "recommender.output_embedding.weight"]
    assert out["topk"] == [3, 4]


def test_stock_models_and_our_backbone_alone_train_with_recboles_trainer(tmp_path):
    code = """
import recbole_alkd
from recbole.quick_start import run_recbole
small = dict(epochs=1, train_batch_size=4096, MAX_ITEM_LIST_LENGTH=5, show_progress=False, state="ERROR",
             train_neg_sample_args=None, user_inter_num_interval="[200,inf)")
for name in ("GRU4Rec", "STAMP", "SessionFPMC"):
    result = run_recbole(model=name, dataset="ml-100k", config_dict=dict(small))
    print(name, 0 <= result["test_result"]["recall@10"] <= 1)
"""
    text = python(code, tmp_path)
    for name in ("GRU4Rec", "STAMP", "SessionFPMC"):
        assert f"{name} True" in text


def words(**extra):
    return [f"--{key}={value}" for key, value in {**SMALL, **extra}.items()]


def test_the_script_and_the_command_run_to_the_table(tmp_path):
    done = fresh(
        [str(ROOT / "run_recbole_alkd.py"), "--model=ALKDRec", "--dataset=ml-100k", *words(state="INFO")],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for text in (
        "teacher recommender",
        "student, trained longer",
        "student, distilled",
        "labels: 20 ordered by the teacher recommender, no LLM asked, 0 reused",
        "worst-case gain",
    ):
        assert text in done.stdout + done.stderr
    again = fresh(["-m", "recbole_alkd.cli", "run", "--dataset=ml-100k", *words(state="INFO")], tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    words_again = "labels: 0 ordered by the teacher recommender, no LLM asked, 20 reused"
    assert words_again in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"alkd_policy": "maxmin"}, "did you mean 'max_min'"),
        ({"budget_labels": 0}, "budget_labels: 0 is not allowed"),
        ({"config_files": "none.yaml"}, "none.yaml"),
        ({"student_model": "FPMC"}, "student_model: 'FPMC'"),
    ],
)
def test_a_bad_setting_is_one_line_on_the_command_line(tmp_path, extra, expected):
    done = run([str(ROOT / "run_recbole_alkd.py"), "--dataset=ml-100k", *words(**extra)], tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected in last
    assert "Traceback" not in done.stderr
