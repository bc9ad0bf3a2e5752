"""What ``student_tune`` tries: the space of each backbone, read and checked, and the settings that are drawn
from it.

The space is ``properties/student_search.yaml`` or a user's own file (``student_search``). The same settings
are drawn for every seed of a run, so that seeds differ by the noise of training alone, and a larger
``student_tune`` adds tries to those of a smaller one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.distill.combined import loss_options, wanted_losses
from recbole_alkd.files import properties
from recbole_alkd.learner.base import learner_class
from recbole_alkd.learner.role_run import RUN_KEYS
from recbole_alkd.learner.role_run import laid_over as laid_over
from recbole_alkd.model.backbone import defaults_of, role_config, view_and_model
from recbole_alkd.model.session_model import LOSSES
from recbole_alkd.registry import backbones, losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT, Field, between, is_a, words
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.identity import settings_hash, stage_seed
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.reading import spec_of
from recbole_alkd.settings.stock import SPECS
from recbole_alkd.settings.text import read_yaml, read_yaml_file

Space = Mapping[str, Sequence[Any]]
Values = dict[str, Any]

COMMON, LONGER = "common", "student_longer"
# Settings of models that decide the size of what is served, what is evaluated, or what a batch holds.
FIXED = {
    "embedding_size", "hidden_size", "inner_size", "n_layers", "num_layers", "block_num", "kernel_size",
    "dilations", "k_interests",
    "prototype_size", "interest_size", "tie", "MAX_ITEM_LIST_LENGTH", "mask_session_items",
    "train_neg_sample_args", "transform",
}  # fmt: skip
OWN_LOSS = ("loss_type", "loss_negatives")  # of a backbone's own loss, which train_loss replaces
MOST = 100_000  # combinations of a space


def read_spaces(settings: Settings) -> dict[str, dict[str, list[Any]]]:
    """Section -> setting -> values of the file that ``student_search`` names, or of the shipped one, checked.

    Raises:
        AlkdError: a file that cannot be read; an unknown section or setting, or one that may not be tuned;
            a bad value.
    """
    name = settings.backbone.student_search
    file = Path(name).expanduser() if name else _shipped("student_search.yaml")
    place = f"student_search: {str(file)!r}"
    content = read_yaml_file(file, place)
    if not isinstance(content, dict) or not all(
        isinstance(entry, dict) or entry is None for entry in content.values()
    ):
        raise AlkdError(
            f"{place}: a mapping is expected: {COMMON}, {LONGER} or a backbone -> setting -> list of values"
        )
    spaces = {str(section): dict(entry or {}) for section, entry in content.items()}
    for section, space in spaces.items():
        _check_section(place, section, space)
    return spaces


def space_of(spaces: Mapping[str, Space], model: str) -> Space:
    """The space of a backbone: the common one, and its own laid over it.
    {} for one that has nothing to train."""
    if not learner_class(model).tunable:
        return {}
    return {**spaces.get(COMMON, {}), **spaces.get(model, {})}


def check_search(settings: Settings) -> None:
    """Everything about ``student_tune`` and ``student_search`` that can be wrong,
    found before anything is trained.

    Raises:
        AlkdError: as ``read_spaces``; more settings to try than a backbone's space has.
    """
    count = settings.backbone.student_tune
    if not count:
        return
    spaces = read_spaces(settings)
    for role in ("student", "teacher"):
        model = getattr(settings.backbone, f"{role}_model")
        space = space_of(spaces, model)
        size = len(combinations(space, settings.training.train_loss))
        if learner_class(model).tunable and count > size:
            raise AlkdError(
                f"student_tune: {count} is more than the {size} settings in the space of {role}_model "
                f"{model!r} (student_search); "
                f"allowed: 0 to {size}"
            )


def combinations(space: Space, train_loss: str | None = None) -> list[Values]:
    """Every combination of a space once, without the settings that have no effect in it.

    Args:
        train_loss: that of the run, for a space without it.
    """
    different: dict[str, Values] = {}
    for chosen in itertools.product(*space.values()):
        values = dict(zip(space, chosen, strict=True))
        sampled = values.get("train_loss", train_loss)
        idle = [key for key in values if (key in OWN_LOSS if sampled else key.startswith("softmax_"))]
        values = {key: value for key, value in values.items() if key not in idle}
        different.setdefault(settings_hash(values), values)
    return list(different.values()) if space else []


def role_tries(config: Any, settings: Settings, role: str) -> list[Values]:
    """What is tried for the recommender of ``role``: {} (the run's own settings),
    then ``student_tune`` - 1 others.

    The order is drawn from the backbone's name and its space, every value of a setting about equally often;
    the run's own settings are not drawn a second time.
    """
    model = getattr(settings.backbone, f"{role}_model")
    space = space_of(read_spaces(settings), model)
    own = role_config(config, settings, role).final_config_dict
    others = (
        values
        for values in _spread(combinations(space, settings.training.train_loss), model, space)
        if any(own.get(key) != value for key, value in values.items())
    )
    return [{}, *itertools.islice(others, settings.backbone.student_tune - 1)]


def loss_tries(settings: Settings, learning_rate: float) -> list[Values]:
    """What is tried for distillation: {} (the run's own), then others from the loss's space in
    ``properties/loss_search.yaml``.

    At most ``student_tune`` in all, and no more than the space has. A sum of losses, and a loss that has no
    space there, is left as it is.

    Args:
        learning_rate: what ``kd_learning_rate: ~`` stands for.
    """
    wanted = list(wanted_losses(settings))
    if len(wanted) > 1:
        return [{}]
    space = loss_space(wanted[0])
    own = settings.distill.flat() | {"kd_learning_rate": settings.distill.kd_learning_rate or learning_rate}
    options = {name: loss_options(settings.distill.kd_config, name) for name in wanted}
    own |= {
        "kd_config": {name: losses.get(name).checked(settings, chosen) for name, chosen in options.items()}
    }

    def is_own(key: str, value: Any) -> bool:
        if key != "kd_config":
            return bool(own[key] == value)
        return all(
            own[key][name][option] == choice
            for name, options in value.items()
            for option, choice in options.items()
        )

    others = [
        values
        for values in _spread(combinations(space), wanted[0], space)
        if not all(is_own(key, value) for key, value in values.items())
    ]
    return [{}, *others][: settings.backbone.student_tune]


def longer_tries(settings: Settings, learning_rate: float) -> list[Values]:
    """The same for the control that is trained on (``student_longer``)."""
    space = read_spaces(settings).get(LONGER, {})
    own = settings.distill.kd_learning_rate or learning_rate
    others = [
        values
        for values in _spread(combinations(space), LONGER, space)
        if values != {"kd_learning_rate": own}
    ]
    return [{}, *others][: settings.backbone.student_tune]


def loss_space(loss: str) -> Space:
    """The key ``search`` of a loss in ``properties/loss_search.yaml``; {} for one that is not there."""
    known = read_yaml(_shipped("loss_search.yaml").read_text(encoding="utf-8"))
    return dict(known.get(loss, {}).get("search", {}))


def tuning_facts(settings: Settings, roles: Iterable[str], labels: bool) -> Values:
    """All about tuning that decides the outcome of ``roles``, and of distillation where there are
    ``labels``."""
    spaces = read_spaces(settings)
    facts: Values = {role: space_of(spaces, getattr(settings.backbone, f"{role}_model")) for role in roles}
    if labels:
        facts |= {loss: loss_space(loss) for loss in wanted_losses(settings)} | {
            LONGER: spaces.get(LONGER, {})
        }
    return {"student_tune": settings.backbone.student_tune, **facts}


def with_loss(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with ``values`` of distillation laid over them; ``kd_config`` option by option."""
    distill = settings.distill
    merged = dict(distill.kd_config)
    for name, options in values.get("kd_config", {}).items():
        merged[name] = {**merged.get(name, {}), **options}
    return dataclasses.replace(
        settings, distill=dataclasses.replace(distill, **{**values, "kd_config": merged})
    )


def _spread(values: list[Values], name: str, space: Space) -> Iterator[Values]:
    """Every one of ``values`` once, in a random order that has the values of each setting about equally often
    from the start."""
    rng = np.random.default_rng(stage_seed(0, "student_tune", name, settings_hash(dict(space))))
    rest = [
        (values[i], [(key, str(value)) for key, value in values[i].items()])
        for i in rng.permutation(len(values))
    ]
    used: Counter[tuple[str, str]] = Counter()
    while rest:
        chosen = min(rest, key=lambda entry: sum(used[pair] for pair in entry[1]) / len(entry[1]))
        rest.remove(chosen)
        used.update(chosen[1])
        yield chosen[0]


def _shipped(name: str) -> Path:
    return properties() / name


def _check_section(place: str, section: str, space: Mapping[str, Any]) -> None:
    allowed = set(RUN_KEYS)
    defaults: dict[str, Any] = {}
    if section == LONGER:
        allowed = {"kd_learning_rate"}
    elif section == COMMON:
        pass
    elif section not in backbones:
        names = [COMMON, LONGER, *backbones]
        raise AlkdError(
            f"{place}: {section!r} is no backbone{hint(section, names, 0.5)}; allowed: {', '.join(names)}"
        )
    elif not learner_class(section).tunable:
        raise AlkdError(f"{place}: {section}: it is not tuned, but fitted by itself in one go; leave it out")
    else:
        defaults = defaults_of(view_and_model(section)[1])
        allowed |= set(defaults) - FIXED
    if math.prod(len(values) for values in space.values() if isinstance(values, list)) > MOST:
        raise AlkdError(f"{place}: {section}: more than {MOST:,} combinations; allowed: at most that many")
    for key, values in space.items():
        if key not in allowed:
            names = sorted(allowed)
            raise AlkdError(
                f"{place}: {section}: {key!r} cannot be tuned{hint(key, names)}; allowed: {', '.join(names)}"
            )
        if not isinstance(values, list) or not values:
            raise AlkdError(
                f"{place}: {section}: {key}: {values!r} is not allowed; "
                "allowed: a list of values, at least one"
            )
        for value in values:
            _field_of(section, key, defaults.get(key)).checked(f"{place}: {section}: {key}", value)


def _field_of(section: str, key: str, default: Any) -> Field:
    """What a tuned setting takes; ``default``: the backbone's own, for a setting that no spec knows."""
    spec = spec_of(key) or (SPECS.get(key) if key in RUN_KEYS else None)
    if spec is not None:
        return spec
    if key == "loss_type":
        draws = getattr(view_and_model(section)[1], "draws_negatives", False)
        return Field(NO_DEFAULT, str, choices=LOSSES if draws else ("CE",))
    if "dropout" in key and isinstance(default, list):
        size = len(default)
        good = words(
            f"a list of {size} numbers in [0, 1)",
            lambda v: len(v) == size and not any(map(_DROPOUT.wanted, v)),
        )
        return Field(NO_DEFAULT, list, check=good)
    if "dropout" in key:
        return _DROPOUT
    if is_a(default, int, float):
        return Field(
            NO_DEFAULT, float, check=words(f"a number such as {default!r}, the model's own", math.isfinite)
        )
    own = words(f"a value such as {default!r}, the model's own", lambda v: type(v) is type(default))
    return Field(NO_DEFAULT, (str, bool, list, dict, float), null=default is None, check=own)


_DROPOUT = Field(NO_DEFAULT, float, check=between(0, 1, "[)"))
