"""kd_loss as a name or a weighted sum, kd_config, needs."""

import pytest
import torch
from torch import nn

from recbole_alkd.distill import DistillationLoss, build_loss, check_losses, check_needs, wanted_losses
from recbole_alkd.distill.pairwise import Pairwise
from recbole_alkd.registry import losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.testing.losses import toy_batch, toy_context


class Probe(DistillationLoss):
    needs = frozenset({"teacher_vectors", "popularity"})
    defaults = {"weight": 0.5, "height": 3, "sharp": False}  # noqa: RUF012
    limits = {"height": (1, 9)}  # noqa: RUF012

    def __init__(self, context, options):
        super().__init__(context, options)
        self.layer = nn.Linear(1, 1)
        self.calls = []

    def epoch_start(self, epoch):
        self.calls.append(("epoch", epoch))

    def forward(self, batch):
        return batch.student_session.sum() * 0 + self.options["height"]

    def after_step(self, optimizer):
        self.calls.append(("step", optimizer))


@pytest.fixture
def probe():
    losses.register("probe")(Probe)
    yield
    del losses._entries["probe"]


def test_a_single_name_is_that_loss():
    context = toy_context()
    batch = toy_batch(context)
    torch.testing.assert_close(build_loss(context)(batch), Pairwise(context, {})(batch))


def test_a_sum_has_factor_times_the_losss_own_weight(probe):
    context = toy_context(
        kd_loss={"pairwise": 2, "probe": 4.0},
        kd_config={"probe": {"height": 7}, "pairwise": {"weight": 0.25}},
    )
    batch = toy_batch(context)
    expected = 2 * 0.25 * Pairwise(context, {})(batch) + 4 * 0.5 * 7
    torch.testing.assert_close(build_loss(context)(batch), expected)


def test_parts_that_need_lists_may_have_a_batch_of_their_own(probe):
    context = toy_context(kd_loss={"pairwise": 1, "ftd": 1000})
    plain, labelled = toy_batch(context, labels=False), toy_batch(context, size=4)
    loss = build_loss(context)
    expected = loss.losses[0](labelled) + loss.losses[1](plain)
    torch.testing.assert_close(loss(plain, labelled), expected)
    assert not torch.allclose(loss(labelled), expected)
    assert loss.needs == {"lists", "teacher_vectors"}


def test_parts_hear_of_epochs_and_steps_and_show_their_parameters(probe):
    loss = build_loss(toy_context(kd_loss={"pairwise": 1, "probe": 1}))
    assert len(list(loss.parameters())) == 2
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss.epoch_start(3)
    loss.after_step(optimizer)
    assert loss.losses[1].calls == [("epoch", 3), ("step", optimizer)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kd_loss": "pairwize"},
            r"kd_loss: 'pairwize' is not a known distillation loss \(did you mean 'pairwise'\?\)",
        ),
        ({"kd_loss": {}}, "kd_loss: an empty mapping is not allowed"),
        (
            {"kd_loss": {"pairwise": 0}},
            "kd_loss: weight 0 of 'pairwise' is not allowed; allowed: a number above 0",
        ),
        ({"kd_loss": {"pairwise": "1"}}, "kd_loss: weight '1' of 'pairwise'"),
        ({"kd_loss": {"pairwise": True}}, "kd_loss: weight True of 'pairwise'"),
        ({"kd_loss": "dsl"}, r"kd_rec_weight: 0\.0 is not allowed with kd_loss dsl"),
        ({"kd_config": {"nope": {}}}, "kd_config: 'nope' is not a known distillation loss"),
        ({"kd_config": {"pairwise": 3}}, "kd_config: 3 of 'pairwise' is not allowed; allowed: a mapping"),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"height": 0}}},
            "height: 0 is not allowed; allowed: an integer from 1 to 9",
        ),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"height": 2.5}}},
            r"height: 2.5 \(float\) .*: an integer from 1 to 9",
        ),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"height": True}}},
            r"height: True \(bool\) is not allowed",
        ),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"sharp": 1}}},
            r"sharp: 1 \(int\) is not allowed; allowed: True or False",
        ),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"weight": float("nan")}}},
            "weight: nan is not allowed",
        ),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"weight": float("inf")}}},
            "weight: inf is not allowed",
        ),
        (
            {"kd_loss": "probe", "kd_config": {"probe": {"weight": "1"}}},
            r"weight: '1' \(str\) is not allowed; allowed: a number",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line_before_anything_is_trained(probe, settings, message):
    for check in (check_losses, lambda checked: build_loss(toy_context(**settings))):
        with pytest.raises(AlkdError, match=message) as error:
            check(read_settings(settings))
        assert "\n" not in str(error.value)


def test_settings_of_a_loss_that_is_not_asked_for_do_no_harm():
    check_losses(read_settings({"kd_config": {"unkd": {"groups": 4}}}))
    with pytest.raises(AlkdError, match="needs teacher_vectors"):
        check_losses(read_settings({"kd_loss": "ftd"}), available={"lists"})


def test_wanted_losses():
    assert wanted_losses(read_settings({})) == {"pairwise": 1.0}
    assert wanted_losses(read_settings({"kd_loss": {"pairwise": 3}})) == {"pairwise": 3.0}


def test_needs_are_checked_before_training(probe):
    check_needs(["pairwise", "probe"], {"lists", "teacher_vectors", "popularity"})
    check_needs([], ())
    with pytest.raises(
        AlkdError, match=r"kd_loss: 'probe' needs teacher_vectors and popularity, .* it has: lists"
    ):
        check_needs(["pairwise", "probe"], {"lists"})
    with pytest.raises(AlkdError, match=r"kd_loss: 'pairwise' needs lists, .* it has: nothing"):
        check_needs(["pairwise"], ())


def test_a_loss_that_asks_for_a_missing_teacher_says_so():
    context = toy_context(teacher_size=None)
    with pytest.raises(AlkdError, match="needs a teacher recommender"):
        _ = toy_batch(context).teacher_scores
    with pytest.raises(AlkdError, match="needs the LLM's lists"):
        Pairwise(context, {})(toy_batch(context, lists=None))
