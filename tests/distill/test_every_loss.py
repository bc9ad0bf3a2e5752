"""The contract of distillation losses, for every registered name. A new loss is picked up by itself."""

from recbole_alkd.registry import losses
from recbole_alkd.testing.losses import LossTests

# What single losses need to be built, and which of them detach a part of themselves.
SPECIAL: dict[str, dict[str, object]] = {
    "dsl": {"trains": False, "settings": {"kd_rec_weight": 1.0}},
    "htd": {"smooth": False},
    "text_pairs": {"settings": {"item_text": "tfidf"}},
    "text_project": {"settings": {"item_text": "tfidf"}},
}

for _name in losses:
    _class = f"Test{_name.title().replace('_', '')}"
    globals()[_class] = type(_class, (LossTests,), {"loss": _name, **SPECIAL.get(_name, {})})
