"""Everything beyond serving, loaded once (``late.py``): RecBole made fit for today's libraries, then our
models registered with it."""

from recbole_alkd import compat

compat.apply()

from recbole_alkd import plugin  # noqa: E402  (RecBole can only be imported once compat has run)

plugin.register()

from recbole_alkd.quick_start import load_data_and_model, objective_function, run_recbole_alkd  # noqa: E402
from recbole_alkd.registry import backbones, losses, policies, teachers  # noqa: E402

__all__ = [
    "backbones", "load_data_and_model", "losses", "objective_function", "policies", "run_recbole_alkd",
    "teachers",
]  # fmt: skip
