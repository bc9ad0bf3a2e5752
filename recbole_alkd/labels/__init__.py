"""Labels: the durable store of LLM rankings and the budget that is enforced before a request leaves."""

from recbole_alkd.labels.budget import Budget
from recbole_alkd.labels.store import Label, LabelStore, LabelStoreError, label_key

__all__ = ["Budget", "Label", "LabelStore", "LabelStoreError", "label_key"]
