"""Settings as a user gives them, to RecBole's Config: words of a command line, YAML files,
values of a caller.

RecBole evaluates such texts, makes objects of files and drops a value with a second ``=``.
Here they are data.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.keys import recbole_keys
from recbole_alkd.settings.reading import is_ours, parse, spec_of
from recbole_alkd.settings.stock import plain, read_text
from recbole_alkd.settings.text import read_yaml_file


def settings_among(words: Sequence[str]) -> dict[str, str]:
    """The settings among the words of a command line. RecBole's warning for the others,
    which are the script's own."""
    given: dict[str, str] = {}
    others = []
    for word in words:
        key, equals, text = word[2:].partition("=")
        if not (word.startswith("--") and equals and key):
            others.append(word)
        elif given.get(key, text) != text:
            # the program's own, which may take it often
            if key not in recbole_keys() and not is_ours(key, recbole_keys()):
                others.append(word)
                continue
            raise AlkdError(f"--{key} is given twice, as {given[key]!r} and as {text!r}; give it once")
        else:
            given[key] = text
    if others:
        logging.getLogger().warning(f"command line args [{' '.join(others)}] will not be used in RecBole")
    return given


def read_config_file(file: Any) -> dict[str, Any]:
    """The settings in a YAML file of the user's."""
    place = f"config file {str(file)!r}"
    if not isinstance(file, (str, os.PathLike)) or not os.path.isfile(file):
        raise AlkdError(f"{place} does not exist (looked from {os.getcwd()!r})")
    content = read_yaml_file(Path(file), place)
    if not isinstance(content, dict):
        raise AlkdError(
            f"{place}: a mapping of settings is expected (key: value), found {type(content).__name__}"
        )
    for key in content:
        if not isinstance(key, str):
            raise AlkdError(f"{place}: {key!r} is not the name of a setting; names are text")
    return {key: plain(key, value) for key, value in content.items()}


def read_setting(key: str, value: Any) -> Any:
    """A setting as the command line or a caller gives it: text is read, and nothing is evaluated."""
    if not isinstance(value, str):
        return plain(key, value)
    return (
        parse(key, value)
        if spec_of(key) or is_ours(key, recbole_keys())
        else plain(key, read_text(key, value))
    )
