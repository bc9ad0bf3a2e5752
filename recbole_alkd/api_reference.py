"""Makes ``docs/reference/api.md`` from the docstrings of public names.

``make settings`` writes it, and a test fails while it differs or a public name is missing.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

# What other programs may rest on, room by room; a name that README and the guide import belongs here too.
PUBLIC = {
    "recbole_alkd": ("run_recbole_alkd", "load_data_and_model", "objective_function", "AlkdError"),
    "recbole_alkd.registry": ("Registry",),
    "recbole_alkd.quick_start": ("select_instances", "label_instances"),
    "recbole_alkd.data.sessions": ("make_sessions",),
    "recbole_alkd.labels": ("Label", "LabelStore", "LabelStoreError", "Budget", "label_key"),
    "recbole_alkd.labels.cost": ("Cost",),
    "recbole_alkd.active.max_min": ("solve_max_min", "solve_general", "worst_case_gain", "MaxMinSolution"),
    "recbole_alkd.active.gain": ("counts_from_ratio", "log_gain"),
    "recbole_alkd.active.sampling": ("draw",),
    "recbole_alkd.active.policy.base": ("Policy", "Pool", "Selection", "take_highest"),
    "recbole_alkd.teacher.base": ("LLMTeacher", "Answer"),
    "recbole_alkd.teacher.parse": ("parse_ranking", "ParsedRanking"),
    "recbole_alkd.teacher.prompt": ("shown_order",),
    "recbole_alkd.distill.base": ("DistillationLoss", "DistillBatch"),
    "recbole_alkd.model.session_model": ("SessionModel", "last_items"),
    "recbole_alkd.model.counted": ("CountedModel", "Counted"),
    "recbole_alkd.model.counting": ("session_counts", "training_sessions"),
    "recbole_alkd.model.edges": ("Weighing",),
    "recbole_alkd.learner": ("Learner",),
    "recbole_alkd.settings.field": ("Field", "at_least", "above", "between", "words"),
    "recbole_alkd.serving": ("Recommender", "Recommendation", "Reason", "Found", "write_bundle", "update"),
    "recbole_alkd.testing": ("LossTests", "PolicyTests", "TeacherTests", "LearnerTests", "run_toy",
                             "write_toy_data"),
    "recbole_alkd.testing.policies": ("make_pool",),
}  # fmt: skip
_HEAD = """\
# Python

Made from the docstrings of public names by `make settings`. What is not here may change in any release;
what is here changes with a line in the changelog. The console command has the same parts under their own
names: `recbole-alkd COMMAND --help`.
"""
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Example|Examples):(.*)$")
_ENTRY = re.compile(r"^([\w*][\w*, .()]*?): (.*)$")


def api_page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for module, names in PUBLIC.items():
        lines += [f"## {module}", ""]
        summary = _paragraph(inspect.getdoc(importlib.import_module(module)) or "")
        lines += [_prose(summary), ""] if summary else []
        for name in names:
            lines += _entry(module, name)
    return "\n".join(lines).rstrip() + "\n"


def _entry(module: str, name: str) -> Iterator[str]:
    thing = getattr(importlib.import_module(module), name)
    yield f"### {name}"
    yield ""
    yield from _signature(name, thing)
    yield from _rendered(inspect.getdoc(thing) or "")
    if inspect.isclass(thing) and not issubclass(thing, BaseException):
        for method, member in _methods(thing):
            yield f"#### {name}.{method}"
            yield ""
            yield from _signature(method, member)
            yield from _rendered(inspect.getdoc(member) or "")


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class of ours defines for others: its public methods that say what they are for."""
    for name, member in vars(kind).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith(("_", "test_")) or isinstance(member, property) or not inspect.isfunction(plain):
            continue
        if inspect.getdoc(plain):
            yield name, plain


def _signature(name: str, thing: Any) -> Iterator[str]:
    """The call in a block, a parameter a line where it is long."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return
    parts = [_part(part) for part in signature.parameters.values() if part.name not in ("self", "cls")]
    kinds = [part.kind for part in signature.parameters.values() if part.name not in ("self", "cls")]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    back = signature.return_annotation
    tail = (
        ""
        if back is inspect.Signature.empty
        else f" -> {back if isinstance(back, str) else getattr(back, '__name__', back)}"
    )
    line = f"{name}({', '.join(parts)}){tail}"
    yield "```python"
    if len(line) <= 100:
        yield line
    else:
        yield f"{name}("
        yield from (f"    {part}," for part in parts)
        yield f"){tail}"
    yield "```"
    yield ""


def _part(part: inspect.Parameter) -> str:
    """A parameter as it stands in the source."""
    kinds: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    stars = kinds.get(part.kind, "")
    kind = part.annotation
    text = f"{stars}{part.name}"
    if kind is not inspect.Parameter.empty:
        text += f": {kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}"
    if part.default is not inspect.Parameter.empty:
        default = "NO_DEFAULT" if type(part.default) is object else repr(part.default)
        text += f" = {default}" if ":" in text else f"={default}"
    return text


def _paragraph(text: str) -> str:
    return text.split("\n\n")[0].replace("\n", " ").strip()


def _prose(text: str) -> str:
    """Docstring text as Markdown: names in one pair of backticks, and no HTML."""
    return text.replace("``", "`").replace("<", "&lt;") if "`" not in text else _outside(text)


def _outside(text: str) -> str:
    parts = text.replace("``", "`").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def _rendered(doc: str) -> Iterator[str]:
    """A docstring as Markdown: prose, lists of arguments, results and errors, and examples."""
    section, body = "", []
    for line in [*doc.splitlines(), "Returns:"]:
        match = _SECTION.match(line)
        if match is None:
            body.append(line)
            continue
        yield from _section(section, body)
        section, body = match[1], [match[2].strip()] if match[2].strip() else []


def _section(section: str, body: list[str]) -> Iterator[str]:
    text = inspect.cleandoc("\n".join(["", *body]))
    if not text:
        return
    if not section:
        yield from _blocks(text)
        return
    if section.startswith("Example"):
        yield "Example:"
        yield ""
        code = ">>>" in text
        yield from (["```python", text, "```"] if code else [_prose(text)])
        yield ""
        return
    titles = {"Args": "Arguments", "Raises": "Errors", "Yields": "Yields"}
    yield f"{titles.get(section, section)}:"
    yield ""
    entries: list[str] = []
    for line in text.splitlines():
        match = _ENTRY.match(line)
        if match:
            entries.append(f"`{match[1]}`: {_prose(match[2])}")
        elif entries:
            entries[-1] += f" {_prose(line.strip())}"
        else:
            entries.append(_prose(line.strip()))
    yield from (f"- {entry}" for entry in entries)
    yield ""


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs; one that is indented is code, as reStructuredText has it after a double colon."""
    for block in text.split("\n\n"):
        if block.startswith("    "):
            yield "```python\n" + inspect.cleandoc("\n" + block) + "\n```"
        else:
            yield _prose(re.sub(r"::$", ":", " ".join(block.split())))
        yield ""
