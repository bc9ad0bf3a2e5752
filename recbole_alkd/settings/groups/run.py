"""What a run says, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.field import setting, words
from recbole_alkd.settings.groups.group import Group
from recbole_alkd.settings.rules import SIZES

_MODULES = words(
    "a list of names of modules", lambda value: all(isinstance(one, str) and one for one in value)
)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) and value else value


@dataclass(frozen=True)
class ReportSettings(Group):
    """What a run says, and how much of it."""

    heading = "what a run says at its end"
    short_log: bool = setting(
        True,
        bool,
        decides=False,
        help="The console has a line an epoch and what this package says; RecBole's own lines are in the "
        "log file. False: all of it. It may be given for every model that `recbole-alkd run` trains.",
    )
    save_bundle: bool = setting(
        True,
        bool,
        decides=False,
        help="The run folder gets `bundle/`: the distilled student as `recbole-alkd recommend` and other "
        "programs take it.",
    )
    report_tables: list[Any] = setting(
        [],
        list,
        check=SIZES,
        decides=False,
        help="Neighbours an item, such as [10]: SessionKNN tables of these sizes stand in the run's table, "
        "with and without titles.",
    )


@dataclass(frozen=True)
class PluginSettings(Group):
    """Code of the user's own, and trust in files."""

    heading = "plug-ins and trust"
    alkd_plugins: list[str] = setting(
        [],
        list,
        check=_MODULES,
        read=_as_list,
        help="Python modules, one or a list, that register policies, teachers, losses or backbones of your "
        "own.",
    )
    trust_checkpoint: bool = setting(
        False,
        bool,
        decides=False,
        help="Read checkpoints that were not written by this package (they can run code).",
    )
