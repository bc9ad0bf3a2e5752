"""What an API teacher needs, looked for before anything is trained: a model, its price, a package, a key."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from recbole_alkd.llm.api_key import find_key
from recbole_alkd.llm.prices import Price, find_price
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings, TeacherSettings


def price_of(settings: Settings) -> Price | None:
    """What the model asks for its tokens; AlkdError where ``budget_usd`` needs a price and there is none."""
    file = Path(settings.teacher.llm_price_file) if settings.teacher.llm_price_file else None
    return find_price(file, settings.teacher.llm_model, settings.selection.budget_usd is not None)


def check_model(settings: TeacherSettings) -> None:
    default = type(settings)().llm_model
    if settings.llm_model == default:
        raise AlkdError(
            f"llm_model: {default!r} is the model of llm_teacher local; name one that your server has"
        )


def check_access(settings: Settings) -> None:
    if importlib.util.find_spec("openai") is None:
        raise AlkdError("llm_teacher: 'api' needs the openai package: pip install 'recbole_alkd[api]'")
    find_key(settings.teacher)
