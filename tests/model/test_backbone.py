"""The view over backbones: scores, configuration by role, masking of session items, errors."""

import importlib

import pytest
import torch
from tiny import LENGTH, create_dataset, settings_of, tiny_config, tiny_model, tiny_view, training_part

from recbole_alkd.model.backbone import Backbone, defaults_of, role_config, view_and_model
from recbole_alkd.registry import backbones
from recbole_alkd.settings.error import AlkdError

# Settings that single models need on sessions as short as these.
EXTRA = {"AttMix": {"last_k": 4}}
# SessionKNN has scores only: test_session_knn.py
WITH_VECTORS = [name for name in backbones if view_and_model(name)[0].has_vectors]


@pytest.fixture(scope="module")
def dataset(tiny_path):
    return training_part(create_dataset(tiny_config(tiny_path)))


@pytest.fixture(scope="module")
def rows(dataset):
    return dataset.inter_feat


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("name", WITH_VECTORS)
class TestEveryBackbone:
    """Holds for each registered name, as teacher recommender and as student;
    a new backbone is picked up by itself."""

    @pytest.fixture
    def view(self, name, role, tiny_path, dataset):
        own = {f"{role}_model": name, f"{role}_embedding_size": 8, f"{role}_config": EXTRA.get(name, {})}
        return tiny_view(tiny_config(tiny_path, **own), dataset, role)

    def test_scores_are_the_models_own(self, view, rows):
        view.model.eval()
        with torch.no_grad():
            scores = view.scores(rows["item_id_list"], rows["item_length"])
            torch.testing.assert_close(scores, view.model.full_sort_predict(rows), atol=1e-5, rtol=1e-5)

    def test_session_and_item_vectors_fit_together(self, view, rows, dataset):
        view.model.eval()
        session, items = view.encode(rows["item_id_list"], rows["item_length"]), view.item_table()
        assert session.ndim == items.ndim == 2
        assert session.shape == (len(rows), items.shape[1])
        assert items.shape[0] == dataset.item_num

    def test_one_row_and_one_item(self, view, rows):
        view.model.eval()
        row = rows[:1]
        assert int(row["item_length"]) == 1
        assert torch.isfinite(view.scores(row["item_id_list"], row["item_length"])).all()

    def test_its_own_loss_trains_session_and_item_vectors(self, view, rows):
        view.model.train()
        torch.manual_seed(0)
        loss = view.loss(rows)
        assert loss.ndim == 0
        loss.backward()
        reached = [p for p in view.model.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert len(reached) >= 1
        before = view.item_table().detach().clone()
        torch.optim.SGD(view.model.parameters(), lr=1.0).step()
        assert not torch.equal(view.item_table(), before)


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_sessions_may_all_be_shorter_than_the_maximum(name, tiny_path):
    """RecBole pads to the longest session of the data; some models have layers as wide as the maximum."""
    config = tiny_config(tiny_path, student_model=name, student_embedding_size=8, MAX_ITEM_LIST_LENGTH=12)
    dataset = training_part(create_dataset(config))
    rows = dataset.inter_feat
    assert rows["item_id_list"].shape[1] == LENGTH < 12
    view = tiny_view(config, dataset)
    loss = view.loss(rows)
    loss.backward()
    assert (
        torch.isfinite(loss) and torch.isfinite(view.scores(rows["item_id_list"], rows["item_length"])).all()
    )


def test_bert4rec_trains_at_the_mask_it_predicts_from(tiny_path, dataset, rows):
    """With only the target masked, the loss is the cross-entropy of the scores."""
    config = tiny_config(
        tiny_path, student_model="BERT4Rec", student_embedding_size=8, student_config={"ft_ratio": 1.0}
    )
    view = tiny_view(config, dataset)
    view.model.eval()
    scores = view.scores(rows["item_id_list"], rows["item_length"])
    torch.testing.assert_close(view.loss(rows), torch.nn.functional.cross_entropy(scores, rows["item_id"]))


def test_bert4rec_masks_items_of_the_session_and_the_target(tiny_path, dataset, rows):
    config = tiny_config(
        tiny_path,
        student_model="BERT4Rec",
        student_embedding_size=8,
        student_config={"ft_ratio": 0.0, "mask_ratio": 0.5},
    )
    view = tiny_view(config, dataset)
    seen = []
    view.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.manual_seed(0)
    view.loss(rows)
    masked = (seen[0] == view.model.mask_token) & (torch.arange(LENGTH) < rows["item_length"].unsqueeze(1))
    assert masked.any(1).all(), "every row has something to predict"
    assert (seen[0] == view.model.mask_token).sum() == masked.sum(), "padding is never masked"
    long = rows["item_length"] == LENGTH
    assert 0.3 < masked[long].float().mean() < 0.7


def test_fearec_finds_the_rows_of_each_target(tiny_path, dataset, rows):
    model = tiny_view(tiny_config(tiny_path, student_model="FEARec", student_embedding_size=8), dataset).model
    target = rows["item_id"].tolist()
    assert {item: place.tolist() for item, place in model.same_item_index.items()} == {
        item: [i for i, other in enumerate(target) if other == item] for item in set(target)
    }


def test_fearec_with_contrast_is_recboles(tiny_path, dataset, rows):
    own = {"contrast": "un", "tau": 1.0, "sim": "dot"}
    config = tiny_config(tiny_path, student_model="FEARec", student_embedding_size=8, student_config=own)
    view = tiny_view(config, dataset)
    view.model.eval()
    plain = torch.nn.functional.cross_entropy(
        view.scores(rows["item_id_list"], rows["item_length"]), rows["item_id"]
    )
    assert view.loss(rows) > plain


def role_values(tiny_path, role="student", **settings):
    config = tiny_config(tiny_path, **settings)
    return role_config(config, settings_of(config), role)


def test_role_config_takes_each_models_own_yaml(tiny_path):
    config = tiny_config(tiny_path, student_model="GRU4Rec", teacher_model="NARM")
    student, teacher = (role_config(config, settings_of(config), role) for role in ("student", "teacher"))
    assert student["dropout_prob"] == 0.3 and student["num_layers"] == 1
    assert teacher["dropout_probs"] == [0.25, 0.5] and teacher["n_layers"] == 1
    assert (student["model"], teacher["model"], config["model"]) == ("GRU4Rec", "NARM", "ALKDRec")


def test_role_config_reads_numbers_as_recbole_does(tiny_path):
    assert role_values(tiny_path, student_model="SASRec")["layer_norm_eps"] == 1e-12


def test_role_config_precedence(tiny_path):
    values = role_values(tiny_path, student_model="GRU4Rec")
    assert (values["embedding_size"], values["hidden_size"], values["dropout_prob"]) == (10, 10, 0.3)
    # a key of the model's YAML that the user sets for the run beats the YAML, but not the size of the role
    values = role_values(tiny_path, student_model="GRU4Rec", dropout_prob=0.1, embedding_size=64)
    assert (values["embedding_size"], values["dropout_prob"]) == (10, 0.1)
    values = role_values(
        tiny_path, student_model="GRU4Rec", dropout_prob=0.1, student_embedding_size=12,
        student_config={"dropout_prob": 0.2, "hidden_size": 20},
    )  # fmt: skip
    assert (values["embedding_size"], values["hidden_size"], values["dropout_prob"]) == (12, 20, 0.2)
    values = role_values(
        tiny_path, role="teacher", teacher_model="GRU4Rec", student_config={"dropout_prob": 0.2}
    )
    assert (values["embedding_size"], values["dropout_prob"]) == (100, 0.3)


def test_role_config_leaves_the_runs_config_alone(tiny_path):
    config = tiny_config(tiny_path, student_model="GRU4Rec")
    before = dict(config.final_config_dict)
    role_config(config, settings_of(config), "student")["embedding_size"] = 3
    assert config.final_config_dict == before


@pytest.mark.parametrize("name", ["FPMC", "Caser", "HGN", "NPE", "TransRec", "RepeatNet", "SHAN", "LightGCN"])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_that_cannot_work_is_refused_with_those_that_can(tiny_path, name, role):
    with pytest.raises(AlkdError) as error:
        tiny_config(tiny_path, **{f"{role}_model": name})
    assert str(error.value).startswith(f"{role}_model: {name!r}")
    assert all(known in str(error.value) for known in ("SessionFPMC", "GRU4Rec", "SASRec"))
    assert "\n" not in str(error.value)


def test_a_loss_that_needs_sampled_negatives_is_refused(tiny_path, dataset):
    config = tiny_config(tiny_path, student_model="GRU4Rec", student_config={"loss_type": "BPR"})
    with pytest.raises(AlkdError, match=r"student_config: loss_type 'BPR' of GRU4Rec .*allowed: CE"):
        tiny_view(config, dataset)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(
    ("name", "own", "words"),
    [
        ("GRU4Rec", {"num_layers": 0}, "num_layers"),
        ("GRU4Rec", {"dropout_prob": "a"}, "TypeError"),
        ("SASRec", {"n_heads": 3}, "heads"),
        ("SessionFPMC", {"embedding_size": -1}, "negative"),
    ],
)
def test_settings_that_a_model_cannot_be_built_with_are_named(tiny_path, dataset, role, name, own, words):
    config = tiny_config(tiny_path, **{f"{role}_model": name, f"{role}_config": own})
    with pytest.raises(AlkdError, match=f"{role}_config: {name} cannot be built with") as error:
        tiny_view(config, dataset, role)
    assert words in str(error.value) and str(own) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_setting_of_a_role_that_nobody_reads_is_refused(tiny_path, role):
    with pytest.raises(
        AlkdError, match=rf"{role}_config: dropout_prop: no such setting; did you mean 'dropout_prob'\?"
    ):
        tiny_config(tiny_path, **{f"{role}_config": {"dropout_prop": 0.1}})
    with pytest.raises(AlkdError, match=rf"{role}_config: zzz: no such setting"):
        tiny_config(tiny_path, **{f"{role}_config": {"zzz": 0.1}})


def test_session_items_are_masked_only_when_asked(tiny_path, dataset, rows):
    plain = tiny_model(tiny_config(tiny_path), dataset).full_sort_predict(rows)
    assert torch.isfinite(plain).all()
    masked = tiny_model(tiny_config(tiny_path, mask_session_items=True), dataset).full_sort_predict(rows)
    for row, session in enumerate(rows["item_id_list"].tolist()):
        for item in range(dataset.item_num):
            seen = item in session  # the padding 0 too, where there is any
            assert masked[row, item] == (-torch.inf if seen else plain[row, item])


def test_the_saved_student_is_the_plain_student(tiny_path, dataset):
    student = tiny_model(tiny_config(tiny_path, student_embedding_size=4), dataset)
    plain = tiny_model(tiny_config(tiny_path, model="SessionFPMC", embedding_size=4), dataset)
    assert list(student.state_dict()) == [f"recommender.{key}" for key in plain.state_dict()]
    for key, value in plain.state_dict().items():
        assert torch.equal(student.state_dict()[f"recommender.{key}"], value)


def test_alkdrec_delegates_to_its_backbone(tiny_path, dataset, rows):
    model = tiny_model(tiny_config(tiny_path, train_loss=None), dataset)
    seen = rows["item_id_list"], rows["item_length"]
    assert torch.equal(model(*seen), model.recommender(*seen))
    assert torch.equal(model.calculate_loss(rows), model.recommender.calculate_loss(rows))
    torch.testing.assert_close(model.predict(rows), model.recommender.predict(rows))
    assert model.kd is None


def test_a_view_may_score_in_its_own_way(tiny_path, dataset, rows):
    class Doubled(Backbone):
        model_class = backbones.get("SessionFPMC")

        def item_table(self):
            return 2 * super().item_table()

    backbones.register("doubled")(Doubled)
    try:
        doubled = tiny_view(tiny_config(tiny_path, student_model="doubled"), dataset)
    finally:
        del backbones._entries["doubled"]
    plain = tiny_view(tiny_config(tiny_path), dataset)
    torch.testing.assert_close(
        doubled.scores(rows["item_id_list"], rows["item_length"]),
        2 * plain.scores(rows["item_id_list"], rows["item_length"]),
    )


def test_a_plug_in_backbone_brings_its_yaml_beside_its_class(tmp_path, monkeypatch):
    (tmp_path / "shelf_model.py").write_text("from torch import nn\n\n\nclass EASE(nn.Module):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("shelf_model").EASE
    assert "reg_weight" in defaults_of(model), "RecBole has a model of this name"
    (tmp_path / "EASE.yaml").write_text("shelf_height: 3\n")
    assert defaults_of(model) == {"shelf_height": 3}
    (tmp_path / "EASE.yaml").write_text("[1, 2]\n")
    with pytest.raises(AlkdError, match=r"defaults of EASE, '.*EASE\.yaml': a mapping"):
        defaults_of(model)
