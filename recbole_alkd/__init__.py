"""ALKDRec for RecBole: an LLM's knowledge in a small session recommender, from few, actively chosen sessions.

Importing this package is all that RecBole needs to know the model ``ALKDRec``. Where RecBole or torch is not
installed, ``recbole_alkd.serving`` works all the same, and everything else says what to install.
"""

from importlib.util import find_spec as _find_spec
from typing import Any as _Any

__version__ = "0.1.0"
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

_missing = [name for name in ("recbole", "torch") if _find_spec(name) is None]

if _missing:
    from recbole_alkd.settings.error import AlkdError

    def __getattr__(name: str) -> _Any:
        if name.startswith("__"):
            raise AttributeError(name)
        words = (
            f"recbole_alkd.{name} needs {' and '.join(_missing)}, which this environment has not: "
            "pip install recbole-alkd"
        )
        raise ImportError(f"{words}. Without them only recbole_alkd.serving works")

else:
    from recbole_alkd import threads

    threads.wait_passively()  # torch reads how threads wait when it is first imported

    from recbole_alkd import compat, moved

    moved.install()
    compat.apply()

    from recbole_alkd import plugin  # RecBole can only be imported once compat has run
    from recbole_alkd.registry import backbones, losses, policies, teachers
    from recbole_alkd.settings.error import AlkdError

    plugin.register()

    from recbole_alkd.quick_start import load_data_and_model, objective_function, run_recbole_alkd
