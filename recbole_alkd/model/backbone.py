"""A recommender of a run from its settings: which view and model a name stands for, its defaults,
its building."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_alkd.files import properties
from recbole_alkd.model.sampled_softmax import SampledSoftmax
from recbole_alkd.model.view import Backbone
from recbole_alkd.registry import backbones
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.reading import laid_over
from recbole_alkd.settings.text import read_yaml, read_yaml_file


def view_and_model(name: str) -> tuple[type[Backbone], type[nn.Module]]:
    """The view and the RecBole model class behind a registered name, which may be either of the two."""
    entry = backbones.get(name)
    if issubclass(entry, Backbone):
        return entry, entry.model_class
    return getattr(entry, "view_class", Backbone), entry  # a model may come with its own way to be seen


def model_defaults(name: str, folders: list[Path]) -> dict[str, Any]:
    """The settings in ``<folder>/model/<name>.yaml`` of the first folder that has it; {} when none has."""
    for folder in folders:
        file = folder / "model" / f"{name}.yaml"
        if file.is_file():
            return read_yaml(file.read_text(encoding="utf-8")) or {}
    return {}


def property_folders() -> list[Path]:
    """Where models have their defaults: RecBole's folder, and ours."""
    import recbole

    return [Path(recbole.__file__).parent / "properties", properties()]


def defaults_of(model_class: type[nn.Module]) -> dict[str, Any]:
    """A model's own YAML: ``<class>.yaml`` beside the file that defines the class,
    else that of RecBole or of this package.

    Beside the class comes first: a plug-in may have the name of a RecBole model that is no sequential one,
    such as EASE.

    Raises:
        AlkdError: a file beside the class that cannot be read, or that holds no settings.
    """
    name = model_class.__name__
    source = getattr(sys.modules.get(model_class.__module__), "__file__", None)
    beside = Path(source).with_name(f"{name}.yaml") if source else None
    if beside is None or not beside.is_file():
        return model_defaults(name, property_folders())
    content = read_yaml_file(beside, f"defaults of {name}, {str(beside)!r}")
    if not isinstance(content, dict):
        raise AlkdError(f"defaults of {name}, {str(beside)!r}: a mapping from settings to values is expected")
    return content


def role_config(config: Any, settings: Settings, role: str) -> Any:
    """A copy of a RecBole Config as the model of ``role`` ("student" or "teacher") should see it.

    From weak to strong: the run's settings, the model's own YAML, keys of that YAML which the user set for
    the run, ``student_embedding_size`` / ``teacher_embedding_size`` (as ``hidden_size`` too where the YAML
    has one), and ``student_config`` / ``teacher_config``.
    """
    name = getattr(settings.backbone, f"{role}_model")
    size = getattr(settings.backbone, f"{role}_embedding_size")
    own = getattr(settings.backbone, f"{role}_config")
    defaults = defaults_of(view_and_model(name)[1])
    external = getattr(config, "external_config_dict", {})
    values = dict(config.final_config_dict)
    values.update(defaults)
    values.update({key: external[key] for key in defaults if key in external})
    values.update({"embedding_size": size} | ({"hidden_size": size} if "hidden_size" in defaults else {}))
    if role == "teacher":
        values.update({"student_neighbors": None, "student_bytes": None, "item_text": None})
    values.update(own)
    values["model"] = name
    return laid_over(config, values)


# what models raise for settings that they cannot be built with; an AlkdError says more and passes
_NOT_BUILT = (
    TypeError,
    ValueError,
    RuntimeError,
    AssertionError,
    LookupError,
    AttributeError,
    ArithmeticError,
)


def build_backbone(config: Any, dataset: Any, settings: Settings, role: str) -> Backbone:
    """Build the model of ``role`` on ``dataset`` and return the view over it.

    Raises:
        AlkdError: the name is no registered backbone, its loss needs negatives that session batches do not
            carry, or the model refuses its settings.
    """
    name = getattr(settings.backbone, f"{role}_model")
    if name not in backbones:
        raise AlkdError(backbones.unknown(name).replace("student_model", f"{role}_model", 1))
    view, model_class = view_and_model(name)
    viewed = role_config(config, settings, role)
    if viewed["loss_type"] in ("BPR", "BCE") and not getattr(model_class, "draws_negatives", False):
        raise AlkdError(
            f"{role}_config: loss_type {viewed['loss_type']!r} of {name} needs sampled negatives, "
            "which ALKDRec's batches do not "
            "carry; allowed: CE, and BPR_INBATCH where the backbone has it"
        )
    try:
        model = model_class(viewed, dataset)
    except AlkdError:
        raise
    except _NOT_BUILT as error:
        own, size = (getattr(settings.backbone, f"{role}_{what}") for what in ("config", "embedding_size"))
        raise AlkdError(
            f"{role}_config: {name} cannot be built with {own} and {role}_embedding_size {size} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "allowed: values that this model takes"
        ) from error
    return view(model.to(config["device"]), viewed)


def updates_rows(config: Any) -> bool:
    """Whether item tables are updated by touched rows alone (``RowAdam``):
    with ``train_loss`` and what it can do."""
    plain = not config["weight_decay"] and not config["clip_grad_norm"]
    return bool(config["train_loss"]) and config["learner"].lower() == "adam" and plain


class SessionRecommender(SequentialRecommender):
    """A backbone as a RecBole model, with the masking of session items that ``mask_session_items`` asks for.

    ``role`` says whose settings it reads. The state dict is that of the plain backbone under
    ``recommender.``.

    Attributes:
        view: the backbone that is trained. served: the one that scores;
            the same, unless something is laid over it.
    """

    def __init__(self, config: Any, dataset: Any, settings: Settings, role: str) -> None:
        super().__init__(config, dataset)
        self.mask_session_items = settings.session.mask_session_items
        self.build(config, dataset, settings, role)

    def build(self, config: Any, dataset: Any, settings: Settings, role: str) -> None:
        """Make the backbone, anew where there is one, as these settings have it."""
        self.view = build_backbone(config, dataset, settings, role)
        self.served = self.view
        self.recommender: Any = self.view.model
        self.own_loss: Callable[[Any], Tensor] = self.view.loss
        if settings.training.train_loss and self.view.has_vectors:
            targets = torch.as_tensor(np.asarray(dataset.inter_feat[self.ITEM_ID]))
            if settings.training.train_backwards:
                targets = torch.cat([targets, dataset.backward_rows()[self.ITEM_ID]])
            self.own_loss = SampledSoftmax(
                self.view, settings.training, targets, self.n_items, updates_rows(config)
            )

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return self.served.encode(item_seq, item_seq_len)

    def calculate_loss(self, interaction: Any) -> Tensor:
        return self.own_loss(interaction)

    def predict(self, interaction: Any) -> Tensor:
        """Scores (B,) of one item a row."""
        item = interaction[self.ITEM_ID].unsqueeze(1)
        return self.served.scores_of(
            interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], item
        ).squeeze(1)

    def target_ranks(self, interaction: Any) -> Tensor:
        """Ranks (B,) of the rows' own items, as ``full_sort_predict`` and ``mean_ranks`` have them."""
        item_seq, length, target = (
            interaction[name] for name in (self.ITEM_SEQ, self.ITEM_SEQ_LEN, self.ITEM_ID)
        )
        return self.served.target_ranks(item_seq, length, target, self.mask_session_items)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores (B, n_items); with ``mask_session_items`` the items of the session (and the padding) are
        -inf."""
        item_seq = interaction[self.ITEM_SEQ]
        scores = self.served.scores(item_seq, interaction[self.ITEM_SEQ_LEN])
        if self.mask_session_items:
            scores.scatter_(1, item_seq, -torch.inf)
        return scores
