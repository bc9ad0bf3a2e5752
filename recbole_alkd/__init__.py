"""ALKDRec for RecBole: an LLM's knowledge in a small session recommender, from few, actively chosen sessions.

Importing this package is all that RecBole needs to know the model ``ALKDRec``: RecBole and torch are loaded
with the first thing that needs them (``late.py``), so that a bundle is served without. Where they are not
installed, ``recbole_alkd.serving`` works all the same, and everything else says what to install.
"""

import sys as _sys
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

__version__ = "0.2.0"
__all__ = [
    "AlkdError",
    "__version__",
    "backbones",
    "load_data_and_model",
    "losses",
    "objective_function",
    "policies",
    "run_recbole_alkd",
    "teachers",
]

from recbole_alkd.settings.error import AlkdError

if _TYPE_CHECKING:
    from recbole_alkd.quick_start import load_data_and_model, objective_function, run_recbole_alkd
    from recbole_alkd.registry import backbones, losses, policies, teachers

_missing = (
    [] if "recbole" in _sys.modules else [name for name in ("recbole", "torch") if _find_spec(name) is None]
)

if _missing:

    def __getattr__(name: str) -> _Any:
        if name.startswith("__"):
            raise AttributeError(name)
        words = (
            f"recbole_alkd.{name} needs {' and '.join(_missing)}, which this environment has not: "
            "pip install recbole-alkd"
        )
        raise ImportError(f"{words}. Without them only recbole_alkd.serving works")

else:
    from recbole_alkd import late, moved, threads

    threads.wait_passively()  # torch reads how threads wait when it is first imported
    moved.install()
    late.install()

    def __getattr__(name: str) -> _Any:
        return late.attribute(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

    if "recbole" in _sys.modules:  # it is in use already
        late.load()
