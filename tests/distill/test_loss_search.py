"""The search spaces of ``properties/loss_search.yaml``: one for every loss, equally large, all of
it valid."""

import itertools

import pytest

from recbole_alkd.distill import check_losses, wanted_losses
from recbole_alkd.plugin import properties_dir
from recbole_alkd.registry import losses
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.settings.text import read_yaml

SPACES = read_yaml((properties_dir() / "loss_search.yaml").read_text(encoding="utf-8"))


def test_every_loss_has_a_space():
    assert sorted(SPACES) == list(losses)


@pytest.mark.parametrize("name", list(losses))
def test_a_space_has_six_valid_combinations_and_the_published_weight_is_among_them(name):
    space = SPACES[name]
    combinations = [
        dict(zip(space["search"], values, strict=True))
        for values in itertools.product(*space["search"].values())
    ]
    assert len(combinations) == 6
    for values in combinations:
        settings = read_settings({**space["settings"], **values})
        check_losses(settings)
        assert list(wanted_losses(settings)) == [name]
    assert 1.0 in space["search"].get("kd_weight", [1.0])
