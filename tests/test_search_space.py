"""The space of ``student_tune``: valid for every backbone, without what changes a comparison,
and what is drawn from it."""

import pytest
import yaml
from tiny import create_dataset, settings_of, tiny_config, training_part

from recbole_alkd import AlkdError
from recbole_alkd.bench.plan_settings import SHARED_ONLY
from recbole_alkd.distill import check_losses
from recbole_alkd.learner.search_space import (
    COMMON,
    FIXED,
    LONGER,
    RUN_KEYS,
    combinations,
    laid_over,
    longer_tries,
    loss_tries,
    read_spaces,
    role_tries,
    space_of,
    tuning_facts,
    with_loss,
)
from recbole_alkd.model.backbone import build_backbone, view_and_model
from recbole_alkd.plugin import properties_dir
from recbole_alkd.registry import backbones, losses
from recbole_alkd.settings.field import fields_of
from recbole_alkd.settings.groups import SessionSettings
from recbole_alkd.settings.text import read_yaml

SHIPPED = read_yaml((properties_dir() / "student_search.yaml").read_text(encoding="utf-8"))
WITH_VECTORS = [name for name in backbones if view_and_model(name)[0].has_vectors]


def configured(path, **settings):
    config = tiny_config(path, **settings)
    return config, settings_of(config)


def written(path, **content):
    path.write_text(yaml.safe_dump(content))
    return str(path)


# the shipped space


def test_every_backbone_that_is_trained_has_an_entry():
    assert sorted(SHIPPED) == sorted([COMMON, LONGER, *WITH_VECTORS])


def test_nothing_that_decides_size_or_evaluation_is_tuned():
    tuned = {key for section, space in SHIPPED.items() if section != LONGER for key in space}
    sizes = {"embedding_size", "hidden_size", "student_embedding_size", "teacher_embedding_size"}
    rows = set(fields_of(SessionSettings))
    assert not tuned & (set(SHARED_ONLY) | sizes | rows)
    allowed = set(RUN_KEYS) | {key for name in WITH_VECTORS for key in SHIPPED[name]}
    assert not allowed & (set(SHARED_ONLY) | sizes | rows | FIXED)


@pytest.fixture(scope="module")
def part(tiny_path):
    return training_part(create_dataset(tiny_config(tiny_path)))


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_recbole_and_the_model_take_every_value_and_the_size_stays(tiny_path, part, name):
    own = {"last_k": 4} if name == "AttMix" else {}
    both = {
        f"{role}_{key}": value
        for role in ("student", "teacher")
        for key, value in (("model", name), ("config", own))
    }
    config, settings = configured(tiny_path, **both, student_embedding_size=8, student_tune=1)

    def shapes(config):
        model = build_backbone(config, part, settings_of(config), "student").model
        return {key: value.shape for key, value in model.state_dict().items()}

    space, before = space_of(read_spaces(settings), name), shapes(config)
    assert len(combinations(space)) >= 40
    for key, values in space.items():
        for value in values:
            laid = laid_over(config, "student", {key: value})
            read = tiny_config(
                tiny_path, **{k: laid[k] for k in (*both, *RUN_KEYS, "student_embedding_size")}
            )
            assert (read if key in RUN_KEYS else read["student_config"])[key] == value
            assert shapes(laid) == before


# what is drawn


def test_the_runs_own_settings_come_first_and_once(tiny_path):
    config, settings = configured(
        tiny_path, student_tune=360, train_batch_size=512, learning_rate=0.003, train_loss=None
    )
    tries = role_tries(config, settings, "student")
    assert tries[0] == {} and len(tries) == 360
    own = {
        "learning_rate": 0.003,
        "train_batch_size": 512,
        "train_loss": None,
        "train_backwards": False,
        "item_decay": 0.5,
    }
    assert own in combinations(space_of(read_spaces(settings), "SessionFPMC")) and own not in tries
    assert len({str(sorted(values.items())) for values in tries}) == 360


def test_a_setting_without_effect_is_not_varied(tiny_path, tmp_path):
    common = {
        "train_loss": [None, "sampled_softmax"],
        "softmax_l2": [0.1, 0.2],
        "softmax_dropout": [0.0, 0.3],
    }
    file = written(tmp_path / "mine.yaml", common=common, SessionFPMC={"loss_type": ["CE", "BPR"]})
    config, settings = configured(tiny_path, student_tune=6, student_search=file)
    assert len(role_tries(config, settings, "student")) == 1 + 2 + 4 - 1
    for values in role_tries(config, settings, "student")[1:]:
        sampled = values["train_loss"] == "sampled_softmax"
        assert (
            sampled
            == ("softmax_l2" in values)
            == ("softmax_dropout" in values)
            == ("loss_type" not in values)
        )


def test_seeds_try_the_same_and_a_larger_number_goes_on(tiny_path):
    few, more = (
        role_tries(*configured(tiny_path, student_tune=n, seed=seed, learning_rate=0.02), "student")
        for n, seed in ((4, 1), (9, 2))
    )
    assert more[:4] == few and len(more) == 9


def test_every_value_gets_its_turn_early(tiny_path):
    config, settings = configured(tiny_path, student_tune=7, learning_rate=0.02)
    tries = role_tries(config, settings, "student")[1:]
    for key, values in {"learning_rate": [0.001, 0.003, 0.01], "train_batch_size": [256, 512, 1024]}.items():
        times = [sum(entry[key] == value for entry in tries) for value in values]
        assert min(times) >= 1 and max(times) <= 3, (key, times)


def test_two_backbones_try_equally_many(tiny_path):
    config, settings = configured(tiny_path, student_model="GRU4Rec", teacher_model="STAMP", student_tune=7)
    assert [len(role_tries(config, settings, role)) for role in ("student", "teacher")] == [7, 7]


def test_values_are_laid_where_a_run_has_them(tiny_path):
    mine = {"dropout_prob": 0.2, "num_layers": 2}
    config, _ = configured(tiny_path, student_model="GRU4Rec", student_config=mine, student_tune=3)
    laid = laid_over(config, "student", {"learning_rate": 0.01, "dropout_prob": 0.5})
    assert (laid["learning_rate"], laid["student_tune"]) == (0.01, 0)
    assert laid["student_config"] == {"dropout_prob": 0.5, "num_layers": 2}
    assert (
        config["student_config"] == mine and config["learning_rate"] != 0.01 and config["student_tune"] == 3
    )


# losses and the control


@pytest.mark.parametrize("name", list(losses))
def test_a_loss_is_tried_in_its_space(tiny_path, name):
    own = read_yaml((properties_dir() / "loss_search.yaml").read_text(encoding="utf-8"))[name]["settings"]
    _, settings = configured(tiny_path, **own, student_tune=6)
    tries = loss_tries(settings, 0.005)
    assert tries[0] == {} and len(tries) == 6
    for values in tries:
        check_losses(with_loss(settings, values))


def test_all_of_a_losses_space_is_tried_and_the_runs_own_once(tiny_path):
    _, settings = configured(tiny_path, kd_loss="rd", kd_rec_weight=1.0, student_tune=45)
    assert len(loss_tries(settings, 0.005)) == 6, "weight 1 at .005 is the run's own"
    assert len(loss_tries(settings, 0.002)) == 7


def test_options_of_a_loss_keep_their_company(tiny_path):
    mine = {"htd": {"alpha": 0.1, "weight": 2.0}, "rd": {"k": 5}}
    _, settings = configured(tiny_path, kd_loss="htd", kd_rec_weight=1.0, kd_config=mine, student_tune=2)
    laid = with_loss(settings, {"kd_weight": 10.0, "kd_config": {"htd": {"alpha": 0.9}}}).distill
    assert laid.kd_config == {"htd": {"alpha": 0.9, "weight": 2.0}, "rd": {"k": 5}} and laid.kd_weight == 10.0
    assert settings.distill.kd_config == mine


def test_a_sum_of_losses_is_left_as_it_is(tiny_path):
    _, settings = configured(tiny_path, kd_loss={"pairwise": 1, "tr": 1}, student_tune=5)
    assert loss_tries(settings, 0.001) == [{}]


def test_the_control_tries_as_many_learning_rates(tiny_path):
    _, settings = configured(tiny_path, student_tune=6)
    tries = longer_tries(settings, 0.001)
    assert tries[0] == {} and len(tries) == 6 and {"kd_learning_rate": 0.001} not in tries


# a user's own space, and mistakes


def test_a_file_of_ones_own(tiny_path, tmp_path):
    file = written(
        tmp_path / "mine.yaml", common={"learning_rate": [0.1, 0.2]}, SessionFPMC={"train_batch_size": [8]}
    )
    config, settings = configured(tiny_path, student_tune=2, student_search=file)
    assert role_tries(config, settings, "student")[1] in [
        {"learning_rate": rate, "train_batch_size": 8} for rate in (0.1, 0.2)
    ]
    before = tuning_facts(settings, ("student",), labels=True)
    written(
        tmp_path / "mine.yaml", common={"learning_rate": [0.1, 0.3]}, SessionFPMC={"train_batch_size": [8]}
    )
    assert tuning_facts(settings, ("student",), labels=True) != before, "the content counts"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"SessionFMPC": {}}, ["'SessionFMPC'", "did you mean 'SessionFPMC'", "common"]),
        ({"SessionKNN": {"knn_decay": [0.5]}}, ["SessionKNN", "by itself"]),
        (
            {"common": {"lerning_rate": [0.1]}},
            ["common", "'lerning_rate'", "did you mean 'learning_rate'", "train_batch_size"],
        ),
        ({"common": {"session_augmentation": ["last"]}}, ["'session_augmentation'", "cannot be tuned"]),
        (
            {"GRU4Rec": {"embedding_size": [64]}},
            ["GRU4Rec", "'embedding_size'", "cannot be tuned", "dropout_prob"],
        ),
        ({"AttMix": {"MAX_ITEM_LIST_LENGTH": [5]}}, ["'MAX_ITEM_LIST_LENGTH'", "cannot be tuned"]),
        ({"GRU4Rec": {"loss_type": ["BPR"]}}, ["GRU4Rec", "loss_type", "'BPR'", "allowed: CE"]),
        ({"GRU4Rec": {"dropout_prob": [1.0]}}, ["dropout_prob", "1.0", "[0, 1)"]),
        ({"NARM": {"dropout_probs": [0.5]}}, ["dropout_probs", "0.5", "a list of 2 numbers"]),
        ({"CORE": {"temperature": ["hot"]}}, ["temperature", "'hot'", "0.07"]),
        ({"common": {"learning_rate": 0.1}}, ["learning_rate", "0.1", "a list of values"]),
        ({"common": {"learning_rate": [0]}}, ["learning_rate", "0", "above 0"]),
        ({"common": {"train_batch_size": [2.5]}}, ["train_batch_size", "2.5", "an integer"]),
        ({"common": {"train_loss": ["softmax"]}}, ["train_loss", "'softmax'", "sampled_softmax"]),
        ({"student_longer": {"kd_weight": [1.0]}}, ["student_longer", "'kd_weight'", "kd_learning_rate"]),
        (
            {
                "common": {
                    "learning_rate": [k / 400 for k in range(1, 400)],
                    "train_batch_size": list(range(1, 400)),
                }
            },
            ["100,000"],
        ),
        (
            {"common": {"learning_rate": [0.1]}},
            ["student_tune: 2", "the 1 settings", "SessionFPMC", "allowed: 0 to 1"],
        ),
        (["learning_rate"], ["a mapping is expected"]),
    ],
)
def test_a_bad_space_is_one_line_before_anything_runs(tiny_path, tmp_path, content, words):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(AlkdError) as error:
        tiny_config(tiny_path, student_tune=2, student_search=str(file))
    text = str(error.value)
    assert "\n" not in text and ("mine.yaml" in text or "student_tune" in text)
    for word in words:
        assert word in text, (word, text)


def test_a_file_that_is_not_there(tiny_path):
    with pytest.raises(AlkdError, match=r"student_search: 'none\.yaml' cannot be read"):
        tiny_config(tiny_path, student_tune=2, student_search="none.yaml")


def test_more_than_the_space_has(tiny_path):
    with pytest.raises(AlkdError, match=r"student_tune: 900 is more than the 360 settings .* 'SessionFPMC'"):
        tiny_config(tiny_path, student_tune=900)
    # nothing is tried there
    tiny_config(tiny_path, student_tune=900, student_model="SessionKNN", teacher_model="SessionKNN")
