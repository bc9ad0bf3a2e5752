"""``recbole-alkd settings [WORD]``: every setting with its default, what is allowed, and what it is for."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.checks import import_plugins
from recbole_alkd.files import properties
from recbole_alkd.plugin import MODELS
from recbole_alkd.registry import backbones, losses, policies, teachers
from recbole_alkd.settings.declared import declared
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.nearest import nearest
from recbole_alkd.settings.stock import SPECS
from recbole_alkd.settings.text import read_yaml

_LINE = re.compile(r"^(\w+):(?:\s.*?)?\s#\s*(.*)$")
_KIND = re.compile(r"^\(([^)]*)\)\s*")


@dataclass(frozen=True)
class Setting:
    """One setting as a user is shown it. ``place``: whose it is (ALKDRec, RecBole,
    or a model with defaults of its own)."""

    key: str
    default: Any
    allowed: str
    comment: str
    place: str

    def __str__(self) -> str:
        default = "~" if self.default is None else self.default
        where = "" if self.place == "ALKDRec" else f"  [{self.place}]"
        return f"{self.key}: {default}  ({self.allowed}){where}" + (
            f"\n    {self.comment}" if self.comment else ""
        )


def all_settings() -> list[Setting]:
    """ALKDRec's settings in the order of their file, then RecBole's, then those of our models."""
    import recbole

    folder = properties() / "model"
    settings = _settings(folder / "ALKDRec.yaml", "ALKDRec")
    stock = Path(recbole.__file__).parent / "properties"
    mine = {setting.key for setting in settings}
    for file in (stock / "overall.yaml", stock / "dataset" / "sample.yaml"):
        settings += [setting for setting in _settings(file, "RecBole") if setting.key not in mine]
    for model in MODELS:
        if model != "ALKDRec":
            settings += _settings(folder / f"{model}.yaml", model)
    for key, spec in declared.fields().items():
        if all(setting.key != key for setting in settings):
            default = None if spec.default is NO_DEFAULT else spec.default
            settings.append(
                Setting(key, default, spec.allowed, spec.help, " and ".join(map(str, declared.owners(key))))
            )
    return settings


def _settings(file: Path, place: str) -> list[Setting]:
    text = file.read_text(encoding="utf-8")
    comments = {match[1]: match[2] for match in map(_LINE.match, text.splitlines()) if match}
    return [
        _setting(key, value, comments.get(key, ""), place) for key, value in (read_yaml(text) or {}).items()
    ]


def _setting(key: str, default: Any, comment: str, place: str) -> Setting:
    kind = _KIND.match(comment)
    allowed, comment = (kind[1], comment[kind.end() :]) if kind else ("", comment)
    spec = FIELDS.get(key) or SPECS.get(key) or declared.fields().get(key)
    if spec is not None:
        allowed = spec.allowed
        comment = spec.help if key in FIELDS and place == "ALKDRec" else comment or spec.help
    registries = {registry.setting: registry for registry in (backbones, policies, teachers, losses)}
    registries["teacher_model"] = backbones
    if key in registries:
        allowed = f"one of {', '.join(registries[key])}" + (
            ", or {loss: weight, ...}" if key == "kd_loss" else ""
        )
    return Setting(key, default, allowed or "any", comment, place)


def find_settings(word: str | None) -> list[Setting]:
    """The settings with ``word`` in their name or comment, those with it in their name first;
    all without a word.

    Raises:
        AlkdError: there is none.
    """
    known = all_settings()
    if word is None:
        return known
    lower = word.lower().lstrip("-")
    named = [setting for setting in known if lower in setting.key.lower()]
    matching = named + [
        setting for setting in known if setting not in named and lower in setting.comment.lower()
    ]
    if not matching:
        close = nearest(lower, {setting.key for setting in known})
        raise AlkdError(
            f"{word}: no setting has this in its name or its comment"
            + (f"; did you mean {close!r}?" if close else "")
        )
    return matching


def versions() -> str:
    """This package and what its results rest on."""
    import platform

    import numpy
    import recbole
    import torch

    from recbole_alkd import __version__

    rest = (
        f"recbole {recbole.__version__}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"Python {platform.python_version()}"
    )
    return f"recbole_alkd {__version__} ({rest})"


def add_settings_command(commands: Any) -> None:
    """``recbole-alkd settings``."""
    parser = commands.add_parser(
        "settings",
        help="list the settings, with default, allowed values and meaning",
        description="List the settings, with default, allowed values and meaning. They are given as "
        "--key=value to run, select and "
        "label, or in YAML files (--config_files).",
        allow_abbrev=False,
    )
    parser.add_argument("word", nargs="?", help="only settings with this in their name or comment")
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="MODULE", help="with the settings of these plug-ins"
    )
    parser.set_defaults(run=_list)


def _list(args: argparse.Namespace) -> None:
    import_plugins({"alkd_plugins": args.plugins})
    print(f"# defaults: {properties() / 'model'}")
    print(*find_settings(args.word), sep="\n")
