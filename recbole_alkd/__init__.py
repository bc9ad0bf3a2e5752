"""ALKDRec for RecBole: an LLM's knowledge in a small session recommender, from few, actively chosen sessions.

Importing this package is all that RecBole needs to know the model ``ALKDRec``.
"""

from recbole_alkd import compat, moved

moved.install()
compat.apply()

from recbole_alkd import plugin  # noqa: E402  (RecBole can only be imported once compat has run)
from recbole_alkd.registry import backbones, losses, policies, teachers  # noqa: E402
from recbole_alkd.settings.groups import AlkdError  # noqa: E402

plugin.register()

from recbole_alkd.quick_start import load_data_and_model, objective_function, run_recbole_alkd  # noqa: E402

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
