"""Text as data: YAML files and the values of the command line. Nothing in them is ever evaluated,
no object is made.

RecBole evaluates settings that are text, as Python. ``read_value`` gives what RecBole would, for every text
that stands for a value (numbers, lists, mappings, True, None), and leaves any other text as it stands.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from recbole_alkd.settings.error import AlkdError

NULLS = ("", "~", "None", "null")  # what stands for no value, for every setting
_PLAIN = (str, int, float, bool, list, tuple, dict, type(None))
_LONGEST_LITERAL = 100_000  # characters


class _Loader(yaml.SafeLoader):
    """YAML without objects, with RecBole's numbers (``5e-4`` is a float), and with each key once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key.value!r} stands there twice", key.start_mark
                        )
                    seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?)$"
    ),
    list("-+0123456789."),
)


class _UnreadableError(Exception):
    """No YAML: where (line and column, if known) and what is wrong, in one line."""

    def __init__(self, error: Exception) -> None:
        mark = getattr(error, "problem_mark", None)
        self.where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error) or type(error).__name__
        super().__init__("nested too deeply" if isinstance(error, RecursionError) else what.splitlines()[0])


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:  # a date of month 13 is a ValueError
        raise _UnreadableError(error) from None


def read_yaml(text: str, place: str = "text") -> Any:
    """YAML text as scalars, lists and mappings, with RecBole's numbers (``1e-12`` is a float), no objects,
    and each key once.

    Raises:
        AlkdError: text that is no YAML; it begins with ``place``.
    """
    try:
        return _yaml(text)
    except _UnreadableError as error:
        raise AlkdError(f"{place}{error.where}: not readable as YAML: {error}") from None


def read_yaml_file(file: Path, place: str) -> Any:
    """``read_yaml`` of a file of the user's. ``place``: what an error calls the file,
    its setting and its name.

    Raises:
        AlkdError: a file that cannot be read, or is no YAML.
    """
    try:
        return _yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise AlkdError(f"{place} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise AlkdError(
            f"{place} is not readable as YAML: it is not UTF-8 (byte {error.start + 1})"
        ) from None
    except _UnreadableError as error:
        raise AlkdError(f"{place}{error.where} is not readable as YAML: {error}") from None


def is_null(text: str) -> bool:
    """Whether the text of a setting stands for no value."""
    return text.strip() in NULLS


def read_literal(text: str) -> Any:
    """The value of a Python literal of plain data. ValueError for anything else."""
    if len(text) > _LONGEST_LITERAL:
        raise ValueError("too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in a text
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, _PLAIN):
        raise ValueError(f"{type(value).__name__} is no plain data")
    return value


def read_value(text: str) -> Any:
    """The value that the text of a RecBole setting stands for: a Python literal, a list or mapping as YAML
    has them, true or false, no value; else the text itself."""
    if is_null(text):
        return None
    try:
        return read_literal(text)
    except ValueError:
        pass
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return _yaml(text)
        except _UnreadableError:
            pass
    return text


def read_search_file(file: str) -> dict[str, dict[str, list[Any]]]:
    """RecBole's search file as its ``params_dict`` has it: kind -> setting -> values, or bounds (and step).

    Raises:
        AlkdError: a file that cannot be read, an unknown kind, values that are no list,
            bounds that are no numbers.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AlkdError(
            f"search file {file!r} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8'})"
        ) from None
    space: dict[str, dict[str, list[Any]]] = {}
    counts = {"uniform": 2, "loguniform": 2, "quniform": 3}
    for number, line in enumerate(lines, start=1):
        words = line.strip().split(" ")
        if len(words) < 3:
            continue  # as RecBole does
        name, kind, text = words[0], words[1], "".join(words[2:])
        if name.startswith("#"):
            continue
        place = f"search file {file!r}, line {number}: {name} {kind} {text}"
        if kind == "choice":
            values = read_value(text)
            values = list(values) if isinstance(values, tuple) else values
            if not isinstance(values, list) or not values:
                raise AlkdError(f"{place}: a list of values is expected, such as [64, 128]")
        elif kind in counts:
            try:
                values = [float(part) for part in text.split(",")]
            except ValueError:
                values = []
            if len(values) != counts[kind]:
                raise AlkdError(f"{place}: {counts[kind]} numbers with commas are expected")
        else:
            raise AlkdError(f"{place}: {kind!r} is not allowed; allowed: choice, {', '.join(counts)}")
        space.setdefault(kind, {})[name] = values
    return space
