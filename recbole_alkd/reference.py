"""Makes ``properties/model/ALKDRec.yaml`` and ``docs/reference/settings.md`` from the fields of the settings.

``python -m recbole_alkd.reference`` writes both and the page of public names into the checkout
(``make settings``); a test fails while they differ.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_alkd.api_reference import api_page
from recbole_alkd.files import properties, write_whole
from recbole_alkd.listing import Setting, all_settings
from recbole_alkd.registry import losses
from recbole_alkd.settings.field import Field, fields_of
from recbole_alkd.settings.groups import GROUPS

WIDTH, COMMENT = 110, 32  # columns of a line of YAML, and where its comment begins
_TAIL = "# -- RecBole\n"  # what stands below is written by hand
_HEAD = """\
# Settings of ALKDRec, with their defaults (~: no value). This part is made from recbole_alkd/settings/groups
# by `make settings`. RecBole's own settings are set below it; every other one (metrics, topk, learner, ...)
# works as usual.
"""
_KINDS = {int: "int", float: "float", bool: "bool", str: "str", list: "list", dict: "dict"}
_DOC = """\
# Settings

Made from the fields in `recbole_alkd/settings/groups` by `make settings`. `recbole-alkd settings [WORD]`
shows the same in a terminal, with RecBole's own settings and those of plug-ins (`--plugins MODULE`).

A setting is given as `--key=value` to `recbole-alkd run`, `select` and `label`, as a line of a YAML file
(`--config_files`), or in `config_dict`. The command line comes before `config_dict`, and that before files. A
value is data: nothing in it is evaluated. Every value is checked before anything is trained or paid, and a
misspelt key is an error that names the nearest one. `~` is no value. Settings with a \u2020 do not change
what comes out of a run: runs that differ in them alone are the same run.
"""


def yaml_text(value: Any) -> str:
    """A default as YAML has it, in one line."""
    if value is None or isinstance(value, bool):
        return "~" if value is None else str(value)
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000)
        .removesuffix("\n")
        .removesuffix("...")
        .strip()
    )


def settings_yaml(before: str) -> str:
    """The YAML file of ALKDRec: our part made anew, and RecBole's part as ``before`` has it."""
    lines = [_HEAD]
    for group in GROUPS.values():
        lines += [
            f"# -- {group.heading}",
            *(line for pair in fields_of(group).items() for line in _yaml_lines(*pair)),
            "",
        ]
    return "\n".join(lines) + "\n" + _TAIL + before.partition(_TAIL)[2]


def _yaml_lines(key: str, spec: Field) -> Iterator[str]:
    value = f"{key}: {yaml_text(spec.default)}"
    kinds = " or ".join(_KINDS[kind] for kind in spec.kinds if not (kind is int and float in spec.kinds))
    space = max(COMMENT, len(value) + 2)
    first, *others = textwrap.wrap(f"({kinds}) {spec.help}", WIDTH - COMMENT - 2)
    if space + 2 + len(first) > WIDTH and space > COMMENT:  # a long value: its comment stands above it
        yield from (f"# {line}" for line in textwrap.wrap(f"({kinds}) {spec.help}", WIDTH - 2))
        yield value
        return
    yield f"{value:<{space}}# {first}"
    yield from (" " * COMMENT + f"# {line}" for line in others)


def settings_page() -> str:
    """The page of settings, as Markdown."""
    listed = {(setting.place, setting.key): setting for setting in all_settings()}
    lines = [_DOC]
    for group in GROUPS.values():
        lines += [f"## {group.heading[0].upper()}{group.heading[1:]}", "", _TABLE]
        for key, spec in fields_of(group).items():
            lines.append(_row(listed["ALKDRec", key], "" if spec.decides else " \u2020"))
        lines.append("")
    for model in dict.fromkeys(place for place, _ in listed if place not in ("ALKDRec", "RecBole")):
        lines += [
            f"## {model}",
            "",
            "Given for a run, or in `student_config` and `teacher_config`.",
            "",
            _TABLE,
        ]
        lines += [_row(setting) for (place, _), setting in listed.items() if place == model] + [""]
    lines += [
        "## Options of losses",
        "",
        "`kd_config: {loss: {option: value}}`; every loss has `weight` too.",
        "",
    ]
    lines += ["| loss | option | default | allowed |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | `{option}` | `{yaml_text(spec.default)}` | {_cell(spec.allowed)} |"
        for name in losses
        for option, spec in _options(losses.get(name).options_spec()).items()
    ]
    return "\n".join(lines) + "\n"


_TABLE = "| setting | default | allowed | what it is for |\n|---|---|---|---|"


def _options(spec: Mapping[str, Field]) -> dict[str, Field]:
    return {name: field for name, field in spec.items() if name != "weight"}


def _row(setting: Setting, mark: str = "") -> str:
    cells = (
        f"`{setting.key}`{mark}",
        f"`{yaml_text(setting.default)}`",
        _cell(setting.allowed),
        _cell(setting.comment),
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def made(root: Path) -> dict[Path, str]:
    """File of the checkout in ``root`` -> what it should hold."""
    file = root / "properties" / "model" / "ALKDRec.yaml"
    return {
        file: settings_yaml(file.read_text(encoding="utf-8")),
        root / "docs" / "reference" / "settings.md": settings_page(),
        root / "docs" / "reference" / "api.md": api_page(),
    }


if __name__ == "__main__":
    yaml_file = properties().parent / "properties" / "model" / "ALKDRec.yaml"
    # the page lists what stands there
    write_whole(yaml_file, settings_yaml(yaml_file.read_text(encoding="utf-8")))
    for path, text in made(properties().parent).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        print(path)
