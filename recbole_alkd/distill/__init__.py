"""Distillation losses, one a file. Importing this package registers the built-in ones."""

from recbole_alkd.distill.base import NEEDS, DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.distill.combined import (
    build_item_loss,
    build_loss,
    check_losses,
    check_needs,
    item_losses,
    wanted_losses,
)
from recbole_alkd.registry import import_folder

__all__ = [
    "NEEDS",
    "DistillBatch",
    "DistillContext",
    "DistillationLoss",
    "build_item_loss",
    "build_loss",
    "check_losses",
    "check_needs",
    "item_losses",
    "wanted_losses",
]

import_folder(__name__, __path__)
