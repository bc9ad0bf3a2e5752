"""Distillation losses, one a file. Importing this package registers the built-in ones."""

from recbole_alkd.distill import de, dllm2rec, dsl, ftd, htd, pairwise, rd, rrd, text_pairs, text_project, tr, unkd  # noqa: F401
from recbole_alkd.distill.base import NEEDS, DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.distill.combined import build_item_loss, build_loss, check_losses, check_needs, item_losses, wanted_losses

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
