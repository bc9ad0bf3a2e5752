"""What an API asks for its tokens: an editable table, ``properties/prices.yaml``. A price is never
guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.files import properties
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT, Field, Rule
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.text import read_yaml_file

_AMOUNT = Field(NO_DEFAULT, float, check=Rule("of at least 0", lambda value: 0 <= value < math.inf))


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens. ``batch``: what a request in a batch file costs, as a share of that."""

    input: float
    output: float
    cached_input: float | None = None
    batch: float = 1.0

    def usd(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """What one request costs; ``cached_tokens`` are a part of ``prompt_tokens``."""
        cached = min(cached_tokens, prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        return (
            (prompt_tokens - cached) * self.input + cached * cached_price + completion_tokens * self.output
        ) / 1e6


def default_price_file() -> Path:
    """The prices that this package ships."""
    return properties() / "prices.yaml"


def read_prices(file: Path) -> Mapping[str, Price]:
    """Model name -> price.

    Raises:
        AlkdError: a file that cannot be read, an unknown key, a price that is no number of at least 0.
    """
    content = read_yaml_file(file, f"llm_price_file: {str(file)!r}")
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("models"), dict)
        or content.keys() - {"models", "batch"}
    ):
        raise AlkdError(
            f"llm_price_file: {str(file)!r}: a mapping with the keys models and batch is expected"
        )
    batch = _number(file, "batch", content.get("batch", 1.0))
    prices = {}
    for name, entry in content["models"].items():
        known = {"input", "output", "cached_input"}
        if not isinstance(entry, dict) or not {"input", "output"} <= entry.keys() <= known:
            raise AlkdError(
                f"llm_price_file: {str(file)!r}, model {name!r}: needed are input and output, "
                "allowed is cached_input"
            )
        prices[str(name)] = Price(
            **{key: _number(file, f"{name}: {key}", value) for key, value in entry.items()}, batch=batch
        )
    return prices


def find_price(file: Path | None, model: str, needed: bool) -> Price | None:
    """The price of ``model`` in ``file``, the table that this package brings where it is None;
    None where it has none.

    Args:
        needed: whether a limit in USD rests on it.

    Raises:
        AlkdError: as ``read_prices``; no price, and it is needed.
    """
    file = file or default_price_file()
    prices = read_prices(file)
    if model not in prices and needed:
        raise AlkdError(
            f"budget_usd: {str(file)!r} has no price for llm_model {model!r}{hint(model, prices)}; "
            "add it there, or set "
            "llm_price_file"
        )
    return prices.get(model)


def _number(file: Path, key: str, value: Any) -> float:
    return float(_AMOUNT.checked(f"llm_price_file: {str(file)!r}, {key}", value))
