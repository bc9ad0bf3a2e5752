"""Plans: what they expand to, and that a bad one is refused in one line before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import recbole
import yaml
from tiny import write_benchmark

from recbole_alkd import AlkdError, plugin
from recbole_alkd.bench.arms import ARMS, CLOSED_FORM, TITLE_ARMS, find_arm
from recbole_alkd.bench.before import check_runs
from recbole_alkd.bench.cli import plan_file
from recbole_alkd.bench.plan import read_plan
from recbole_alkd.bench.runs import arm_configs, data_fingerprint, run_key
from recbole_alkd.model import backbone
from recbole_alkd.plugin import properties_dir
from recbole_alkd.registry import losses, policies, teachers
from recbole_alkd.teacher import prompt

TINY = {
    "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]}, "alias_of_item_id": ["item_id_list"],
    "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, "epochs": 2, "budget_labels": 12, "llm_candidates": 8,
    "llm_top_n": 4,
    "session_augmentation": "last", "llm_teacher": "recommender", "kd_batch_size": 16,
}  # fmt: skip
PLAN = {
    "datasets": ["tiny"],
    "backbones": ["SessionFPMC"],
    "seeds": [1, 2],
    "arms": ["student", "alkdrec"],
    "settings": TINY,
}


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        write_benchmark(tmp_path / "data")
        file = tmp_path / "mine.yaml"
        file.write_text(
            yaml.safe_dump({**PLAN, "data_path": str(tmp_path / "data"), **changes}, sort_keys=False)
        )
        return file

    return write


def test_a_plan_is_its_product_with_seeds_fastest(write):
    plan = read_plan(write(backbones={"SessionFPMC": {}, "GRU4Rec": {"student_embedding_size": 6}}))
    tasks = list(plan.tasks())
    assert [(t.backbone, t.arm.name, t.seed) for t in tasks[:3]] == [
        ("SessionFPMC", "student", 1), ("SessionFPMC", "student", 2), ("SessionFPMC", "alkdrec", 1),
    ]  # fmt: skip
    assert len(tasks) == 8
    assert (
        tasks[-1].settings["student_model"] == "GRU4Rec" and tasks[-1].settings["student_embedding_size"] == 6
    )
    assert tasks[-1].settings["alkd_policy"] == "max_min" and tasks[-1].settings["seed"] == 2
    assert plan.reference == "student" and plan.name == "mine"
    check_runs(plan)


PLUGIN = """
import numpy as np
from recbole_alkd.active.policy.base import Policy, Selection
from recbole_alkd.distill.pairwise import Pairwise
from recbole_alkd.registry import losses, policies

@policies.register("plan_policy")
class PlanPolicy(Policy):
    "Needs: nothing. Guarantee: none."
    def select(self, pool, size, rng):
        return Selection(np.arange(size), support=size)

losses.register("plan_loss")(type("PlanLoss", (Pairwise,), {}))
"""


def test_a_plan_names_arms_of_plug_ins(write, tmp_path, monkeypatch):
    (tmp_path / "plan_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (losses, policies):  # other tests of this process go through all that is registered
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    settings = {**TINY, "alkd_plugins": "plan_plugin"}
    plan = read_plan(write(arms=["student", "policy:plan_policy", "loss:plan_loss"], settings=settings))
    assert [arm.settings for arm in plan.arms[1:]] == [
        {"alkd_policy": "plan_policy"},
        {"kd_loss": "plan_loss"},
    ]
    check_runs(plan)
    with pytest.raises(AlkdError, match="alkd_plugins: cannot import 'no_such_plugin'"):
        read_plan(write(settings={**TINY, "alkd_plugins": ["no_such_plugin"]}))


def test_a_changed_plug_in_is_another_run(key, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for number in range(2):
        (tmp_path / "own_plan_plugin.py").write_text(f"NUMBER = {number}\n")
        keys += [key(alkd_plugins="own_plan_plugin"), key("popularity")]
    assert keys[0] != keys[2] and keys[1] == keys[3] and key() not in keys


def test_own_arms_lay_settings_over_known_ones(write):
    plan = read_plan(
        write(arms=["student", {"name": "few labels", "arm": "random", "settings": {"budget_labels": 3}}])
    )
    assert (
        plan.arms[1].settings == {"alkd_policy": "random", "budget_labels": 3}
        and plan.arms[1].stage == "distilled"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": None}, "seeds"),
        ({"seeds": [1, 1]}, "distinct"),
        ({"seeds": [-1]}, "from 0 to 4294967295"),
        ({"seeds": [2**40]}, "from 0 to 4294967295"),
        ({"seeds": [True]}, "distinct integers"),
        ({"seeds": 3}, "seeds: 3 (int) is not allowed"),
        ({"metrics": ["ndcg@0"]}, "metrics"),
        ({"metrics": ["ndcg@99999999999999999999"]}, "metrics"),
        ({"datasets": ["tiny", "Tiny"]}, "'tiny' stands there twice"),
        ({"datasets": ["../tiny"]}, "datasets: '../tiny' has '/' in it"),
        ({"backbones": ["../SessionFPMC"]}, "backbones: '../SessionFPMC' has '/' in it"),
        ({"data_path": ["data"]}, "data_path: ['data'] (list) is not allowed"),
        ({"settings": {"seed": 3}}, "give seeds"),
        ({"settings": {"student_model": "GRU4Rec"}}, "give backbones"),
        ({"settings": {"checkpoint_dir": "x"}}, "--out"),
        ({"arms": ["student", "alkdrek"]}, "did you mean 'alkdrec'"),
        ({"arms": ["student", "loss:rdd"]}, "rdd"),
        ({"arms": ["student", "policy:hardets"]}, "hardest"),
        ({"arms": ["model:GRU5Rec"]}, "GRU4Rec"),
        ({"arms": ["kind:rd"]}, "family"),
        ({"arms": []}, "arms"),
        ({"arms": ["student", "student"]}, "twice"),
        ({"arms": [{"name": "x"}]}, "arms"),
        ({"arms": [{"name": "x", "arm": "student", "settings": {"seed": 3}}]}, "the same for all arms"),
        (
            {"arms": [{"name": "x", "arm": "student", "settings": {"mask_session_items": True}}]},
            "the same for all arms",
        ),
        ({"arms": [{"name": "x", "arm": "popularity", "settings": {"epochs": 3}}]}, "no settings"),
        ({"settings": {"budget_lables": 3}}, "budget_labels"),
        ({"settings": {"epocs": 3}}, "epochs"),
        ({"metrics": ["precision@10"]}, "metrics"),
        ({"reference": "teacher"}, "reference"),
        ({"seed": [1]}, "seeds"),
        ({"datasets": []}, "datasets"),
    ],
)
def test_a_bad_plan_is_refused_in_one_line(write, changes, expected):
    with pytest.raises(AlkdError) as error:
        read_plan(write(**changes))
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"arms": ["student", "text"]}, "title"),
        ({"datasets": ["nowhere"]}, "data-path"),
        ({"datasets": ["alkdrec-games"]}, "import alkdrec CLONE --data Games --out DATA/alkdrec-games"),
        ({"settings": {**TINY, "llm_top_n": 9}}, "llm_top_n"),
        ({"settings": {**TINY, "alkd_mu": "much"}}, "alkd_mu"),
    ],
)
def test_what_only_the_data_or_recbole_can_tell_is_refused_before_anything_runs(write, changes, expected):
    with pytest.raises(AlkdError) as error:
        check_runs(read_plan(write(**changes)))
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../x", "/tmp/x", "a/b", "a\\b", ".", "..", ".hidden", "x.", " x", "x ", "", " ", "C:x", "x\0y",
        "x\ny", "x\ty",
        "NUL", "con.yaml",
        "Lpt1",
        "COM¹", "x" * 101, "ü" * 95, "a*b", "what?", "a|b", "<b>x</b>", "a\u202eb", "\ud800", "a\u200bb",
        ["x"],
        {"a": 1}, True,
    ],
)  # fmt: skip
def test_a_name_that_is_no_file_name_everywhere_is_refused(write, name):
    with pytest.raises(AlkdError) as error:
        read_plan(write(name=name))
    assert "name" in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "name", ["losses", "Ärger mit 日本 (1) [x] & y, z+1=2", "x.y", "-x", "=1+1", 2026, "console"]
)
def test_other_names_are_taken_as_they_are(write, name):
    assert read_plan(write(name=name)).name == str(name)


def test_the_name_of_the_file_is_held_to_the_same(write, tmp_path):
    assert read_plan(write(name=None)).name == "mine"
    (tmp_path / "...yaml").write_bytes((tmp_path / "mine.yaml").read_bytes())
    with pytest.raises(AlkdError, match="that of the plan's file"):
        read_plan(tmp_path / "...yaml")


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (["student", {"name": "Student ", "arm": "random"}], "begins or ends with a space"),
        (["student", {"name": "STUDENT", "arm": "random"}], "'student' and 'STUDENT' look alike"),
        (["student", {"name": "ｓｔｕｄｅｎｔ", "arm": "random"}], "look alike"),
        (
            ["random", {"name": "random sessions", "arm": "random"}],
            "'random' and 'random sessions' look alike",
        ),
        (["student", {"name": "a\u202eb", "arm": "random"}], "cannot be seen"),
        (["student", {"name": "a\nb", "arm": "random"}], "cannot be seen"),
        (["student", {"name": "", "arm": "random"}], "empty"),
        (["student", {"name": None, "arm": "random"}], "None is not allowed"),
        (["student", {"name": "x" * 200, "arm": "random"}], "200 characters"),
    ],
)
def test_arms_that_a_reader_could_not_tell_apart_are_refused(write, arms, words):
    with pytest.raises(AlkdError, match=words):
        read_plan(write(arms=arms))


def test_arms_of_a_study_are_told_apart_too(write):
    study = {"setting": "budget_labels", "values": [5, "5"], "arms": ["random"]}
    with pytest.raises(AlkdError, match=r"random, budget_labels 5.* stands there twice"):
        read_plan(write(arms=["student", "random"], study=study))
    own = {"name": "random, budget_labels 5", "arm": "random"}
    with pytest.raises(AlkdError, match="stands there twice"):
        read_plan(write(arms=["student", "random", own], study={**study, "values": [5, 6]}))


def test_references_that_explode_or_never_end_are_refused(tmp_path):
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
    )
    for content, words in (
        (bomb + "seeds: *a29\n", "more than 100,000 values"),
        ("seeds: &a [*a]\n", "holds itself"),
        ("arms: " + "[" * 3000 + "]" * 3000, "nested too deeply|recursion"),
        ('arms: ["a\\0b"]', "has '.x00' in it"),
        ("arms: !!python/object/apply:os.system [true]", "not readable as YAML"),
    ):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(AlkdError, match=words) as error:
            read_plan(tmp_path / "bad.yaml")
        assert len(str(error.value)) < 500


def test_settings_of_a_plan_are_never_evaluated(write, tmp_path):
    """Neither where a plan is checked nor in the Config of a run, whatever key holds the text."""
    trace = tmp_path / "trace"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    for key in (
        "learning_rate",
        "weight_decay",
        "train_neg_sample_args",
        "embedding_size",
        "loss_type",
        "alkd_mu",
        "epochs",
    ):
        for changes in (
            {"settings": {**TINY, key: code}},
            {"backbones": {"SessionFPMC": {key: code}}},
            {"arms": [{"name": "x", "arm": "random", "settings": {key: code}}]},
            {"study": {"setting": key, "values": [code, 1], "arms": ["alkdrec"]}},
        ):
            try:
                plan = read_plan(write(**changes))
                check_runs(plan)
            except Exception as error:
                assert not trace.exists(), (key, changes, error)
            assert not trace.exists(), (key, changes)


def test_a_run_that_asks_nobody_needs_no_key(write, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    api = {**TINY, "llm_teacher": "api", "llm_model": "some-model"}
    check_runs(read_plan(write(arms=["student", "teacher", "item_knn"], settings=api)))
    with pytest.raises(AlkdError, match=r"tiny, SessionFPMC, alkdrec: .*(OPENAI_API_KEY|openai|title)"):
        check_runs(read_plan(write(arms=["student", "alkdrec"], settings=api)))


def test_folders_and_stores_of_a_plan_are_those_of_where_it_was_started(write, tmp_path, monkeypatch):
    """A run works in a folder of its own; a relative path in a plan may not be read from there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-llm").mkdir()
    own = {"label_store": "mine.sqlite", "stage_cache": "cache", "llm_model": "my-llm", "item_text": "tfidf"}
    plan = read_plan(write(settings={**TINY, **own}))
    assert plan.settings["label_store"] == str(tmp_path / "mine.sqlite") and plan.settings[
        "stage_cache"
    ] == str(tmp_path / "cache")
    assert plan.settings["llm_model"] == str(tmp_path / "my-llm") and plan.settings["item_text"] == "tfidf"


def test_a_data_set_whose_name_begins_alike_is_not_taken_for_it(write, tmp_path):
    file = write(datasets=["tin"])
    shutil.copytree(tmp_path / "data" / "tiny", tmp_path / "data" / "tin")
    with pytest.raises(AlkdError, match="tin"):
        check_runs(read_plan(file))


def test_unreadable_plans_are_named(tmp_path):
    for content in ("a: [", "just words"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(AlkdError, match=r"bad\.yaml"):
            read_plan(tmp_path / "bad.yaml")
    with pytest.raises(AlkdError, match=r"shipped plans: .*losses"):
        plan_file("nothing")


def test_a_changed_default_is_another_run_and_a_comment_is_not(key, tmp_path, monkeypatch):
    folder = shutil.copytree(properties_dir(), tmp_path / "properties")
    monkeypatch.setattr(plugin, "properties", lambda: folder)
    monkeypatch.setattr(
        backbone, "property_folders", lambda: [Path(recbole.__file__).parent / "properties", folder]
    )
    monkeypatch.setattr(prompt, "properties", lambda: folder)

    def change(name, old, new):
        text = (folder / name).read_text()
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new))

    stages = ("student", "teacher", "alkdrec", "llm:text", "popularity")
    keys = {stage: key(stage) for stage in stages}

    def changed():
        before = dict(keys)
        keys.update({stage: key(stage) for stage in stages})
        return [stage for stage in stages if keys[stage] != before[stage]]

    change("model/ALKDRec.yaml", "# Settings of ALKDRec, ", "# Settings of  ALKDRec, ")
    assert changed() == []
    change("model/ALKDRec.yaml", "alkd_mu: 10  ", "alkd_mu: 2  ")
    assert changed() == ["alkdrec", "llm:text"]
    change("model/ALKDRec.yaml", "learning_rate: 0.001", "learning_rate: 0.002")
    assert changed() == list(stages)
    with open(folder / "model" / "SessionFPMC.yaml", "a") as stream:
        stream.write("weight_decay: 0.1\n")  # the model's own default, which no setting of the run shows
    assert changed() == ["student", "teacher", "alkdrec", "llm:text"]
    for file in (folder / "prompt").glob("*.yaml"):
        file.write_text(file.read_text().replace('title: "', 'title: "So: '))
    assert changed() == ["llm:text"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (properties_dir() / "bench").glob("*.yaml")))
def test_shipped_plans_are_good(name):
    plan = read_plan(plan_file(name))
    counted = set(plan.backbones) == {"SessionKNN"} and {arm.stage for arm in plan.arms} <= {
        "student",
        *CLOSED_FORM,
    }
    assert plan.name == name and (len(plan.seeds) >= 3 or counted), (
        "only where nothing is random one seed is enough"
    )


def test_every_loss_policy_and_teacher_is_an_arm():
    for family, names in (("loss", losses), ("policy", policies), ("llm", teachers)):
        for name in names:
            assert find_arm(f"{family}:{name}").stage == "distilled"
    assert all(find_arm(name) is arm for name, arm in ARMS.items())
    assert find_arm("loss:rd").settings["kd_rec_weight"] == 1.0  # the regime it was published with


@pytest.fixture
def key(write):
    """The key of the first run of a plan with one arm."""

    def key(arm="alkdrec", **settings):
        entry = (
            arm
            if arm in CLOSED_FORM
            else {"name": settings.pop("name", "x"), "arm": arm, "settings": settings}
        )
        plan = read_plan(write(arms=[entry], backbones=[settings.pop("backbone", "SessionFPMC")]))
        return run_key(next(plan.tasks()), next(iter(arm_configs(plan).values())), "data")

    return key


def test_a_key_says_what_decides_a_run_and_nothing_else(key, tmp_path):
    (tmp_path / "picks.json").write_text(json.dumps({"a": ["s1"], "b": ["s2"]}))
    assert key() == key(name="another name")
    assert len({key(), key(budget_labels=5), key("teacher"), key("random")}) == 4
    assert key() == key(budget_labels=12, student_config={})  # the plan's value, and a default, said again
    # it has neither labels nor a teacher
    assert key("student") == key("student", budget_labels=5, teacher_embedding_size=7)
    assert key("student") != key("student", student_embedding_size=7)
    assert key("teacher") == key("teacher", student_neighbors=3) != key("teacher", teacher_embedding_size=7)
    assert key("popularity") == key("popularity", backbone="GRU4Rec") != key("item_knn")
    picks = str(tmp_path / "picks.json")
    first = key("policy:listed", alkd_picks=f"{picks}#a")
    assert first != key("policy:listed", alkd_picks=f"{picks}#b")
    other = tmp_path / "elsewhere.json"
    other.write_bytes((tmp_path / "picks.json").read_bytes())
    assert first == key("policy:listed", alkd_picks=f"{other}#a")


def test_vectors_in_a_file_count_by_their_content(write, tmp_path):
    def key(folder, value, ids="i1\n"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "own.npy", np.full((1, 2), value))
        (tmp_path / folder / "own.ids").write_text(ids)
        own = {"item_text": str(tmp_path / folder / "own.npy"), "item_text_loss": "text_pairs"}
        plan = read_plan(write(settings={**TINY, **own}, arms=["student"]))
        return run_key(next(plan.tasks()), next(iter(arm_configs(plan).values())), "data")

    assert key("one", 1.0) == key("the same elsewhere", 1.0) != key("another", 2.0)
    assert len({key("ids", 3.0), key("other ids", 3.0, "i2\n")}) == 2


def test_files_are_looked_for_here_and_below_the_data_path(write, tmp_path, monkeypatch):
    picks = {"name": "listed", "arm": "policy:listed", "settings": {"alkd_picks": "tiny/picks.json#a"}}
    file = write(arms=[picks])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        AlkdError, match=r"tiny, SessionFPMC, listed: alkd_picks: .*picks\.json' cannot be read"
    ):
        check_runs(read_plan(file))
    (tmp_path / "data" / "tiny" / "picks.json").write_text('{"a": ["s1"]}')
    plan = read_plan(file)
    assert plan.arms[0].settings["alkd_picks"] == f"{tmp_path / 'data' / 'tiny' / 'picks.json'}#a"
    check_runs(plan)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "picks.json").write_text('{"a": ["s2"]}')
    assert read_plan(file).arms[0].settings["alkd_picks"] == f"{tmp_path / 'tiny' / 'picks.json'}#a"


def test_the_fingerprint_is_of_the_content(tmp_path):
    prints = []
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiny.inter").write_text(text)
        prints.append(data_fingerprint(tmp_path / name, "tiny"))
    assert prints[0] == prints[1] != prints[2]


def test_every_arm_that_looks_at_titles_has_its_control(key):
    for arm in TITLE_ARMS:
        control = find_arm(f"{arm.name}_permuted")
        assert control.settings == {**arm.settings, "item_text_permuted": True} and control.words.startswith(
            "control: "
        )
        own = {"kd_batch_size": None}  # a table has no steps
        assert (
            len(
                {
                    key("student"),
                    key(arm.name, **own),
                    key(control.name, **own),
                    key(arm.name, item_text="minilm", **own),
                }
            )
            == 4
        )
    assert key("teacher") == key("teacher", item_text="tfidf", serve_text_dim=8), "titles are the student's"


def test_data_that_cannot_be_shipped_are_named_once(tmp_path):
    plan = read_plan(plan_file("paper_games"), str(tmp_path))
    with pytest.raises(
        AlkdError, match=r"datasets: no alkdrec-games.* --data Games --out DATA/alkdrec-games"
    ):
        check_runs(plan)


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (["text_edges"], r"text_edges: .*tiny\.item: no such file"),
        ([{"name": "own", "arm": "text_edges", "settings": {"item_text": "gone.npy"}}],
         r"own: item_text: no file 'gone\.npy', nor below the data path"),
    ],
)  # fmt: skip
def test_titles_and_vectors_that_arms_look_at_are_looked_for_before_anything_runs(write, arms, words):
    own = {key: value for key, value in TINY.items() if key != "kd_batch_size"}
    with pytest.raises(AlkdError, match=words):
        check_runs(read_plan(write(arms=["popularity", *arms], settings=own)))
    own |= {"item_text": "tfidf"}  # which nothing looks at here
    check_runs(read_plan(write(arms=["popularity", "teacher"], backbones=["SessionKNN"], settings=own)))
