"""What one setting takes, and what it is for: the one spec that every value of a user's is checked against.

A setting of ALKDRec is a field of one of the frozen dataclasses in ``settings.groups``, made by ``setting``;
a plug-in gives its own as ``Field`` where it registers; RecBole's settings, options of losses and arguments
of commands are ``Field`` too.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.text import is_null, read_yaml

NO_DEFAULT: Any = object()  # a setting whose default stands elsewhere
Check = Callable[[Any], "str | None"]
_LONGEST = 200  # characters of a value in an error
_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Rule:
    """A check that can say beforehand what it allows.

    Attributes:
        words: what is allowed; behind the type's name ("an integer" + "of at least 1"),
            or in its place where ``alone``.
        good: whether a value is.
    """

    words: str
    good: Callable[[Any], bool]
    alone: bool = False

    def __call__(self, value: Any) -> str | None:
        return None if self.good(value) else self.words


def at_least(low: float) -> Rule:
    """A number >= ``low``."""
    return Rule(f"of at least {low:g}", lambda value: value >= low)


def above(low: float) -> Rule:
    """A number > ``low``."""
    return Rule(f"above {low:g}", lambda value: value > low)


def between(low: float, high: float, ends: str = "[]") -> Rule:
    """A number from ``low`` to ``high``; a round bracket in ``ends`` leaves that end out."""

    def good(value: float) -> bool:
        left = low <= value if ends[0] == "[" else low < value
        return left and (value <= high if ends[1] == "]" else value < high)

    if ends == "[]":
        return Rule(f"from {low:g} to {high:g}", good)
    return Rule(f"in {ends[0]}{low:g}, {high:g}{ends[1]}", good)


def words(text: str, good: Callable[[Any], bool]) -> Rule:
    """A rule of one's own: ``text`` says all of what is allowed."""
    return Rule(text, good, alone=True)


FILLED = words("a text that is not empty", lambda value: bool(value.strip()))


def is_a(value: Any, *types: type) -> bool:
    """``isinstance``, with True and False no numbers: to Python they are, to a user they are not."""
    return isinstance(value, types) and (not isinstance(value, bool) or bool in types)


@dataclass(frozen=True)
class Field:
    """What a setting takes.

    Attributes:
        default: its value where nobody gives one; ``NO_DEFAULT`` where that stands elsewhere.
        types: the type it takes, or several. A number (float) is an integer as well.
        null: whether ``~`` is allowed; it is where it is the default.
        choices: all that it can be. any_case: whether upper and lower case are alike.
        check: a further check of a value of the right type: None, or what is allowed, in words.
            ``Rule`` makes one.
        help: what it is for, as YAML and docs say it.
        secret: whether it may hold a secret by mistake: an error does not show a value of a wrong type, and
            ``check`` raises its own where it would show another.
        decides: whether another value can change what comes out of a run. Runs that differ in other settings
            alone are the same run.
        read: makes a value out of what a user gave, before it is checked.

    Example:
        ``@policies.register("mine", settings={"height": Field(3, int, check=at_least(1), help="Rows.")})``
    """

    default: Any = NO_DEFAULT
    types: type | tuple[type, ...] = str
    null: bool = False
    choices: tuple[Any, ...] = ()
    any_case: bool = False
    check: Check | None = None
    help: str = ""
    secret: bool = False
    decides: bool = True
    read: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        types = self.types if isinstance(self.types, tuple) else (self.types,)
        if float in types and int not in types:
            types = (*types, int)
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "null", self.null or self.default is None)

    @property
    def kinds(self) -> tuple[type, ...]:
        """``types`` as a tuple."""
        return self.types if isinstance(self.types, tuple) else (self.types,)

    def value(self) -> Any:
        """The default, as an object of its own."""
        return copy.deepcopy(self.default)

    @property
    def type_words(self) -> str:
        """The types, in words: "an integer or a list"."""
        kinds = [kind for kind in self.kinds if not (kind is int and float in self.kinds)]
        return " or ".join(_WORDS[kind] for kind in kinds)

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.choices:
            text = " | ".join(map(str, self.choices))
        elif not isinstance(self.check, Rule):
            text = self.type_words
        else:
            text = self.check.words if self.check.alone else f"{self.type_words} {self.check.words}"
        return text + (" or ~" if self.null else "")

    def wanted(self, value: Any) -> str | None:
        """What is allowed, in words, where ``value`` is not; None where it is."""
        problem = self._problem(value)
        return problem[1] if problem else None

    def checked(self, key: str, value: Any) -> Any:
        """``value`` as the setting has it (a tuple as a list).

        Args:
            key: what an error calls the setting.

        Raises:
            AlkdError: it is not allowed.
        """
        if isinstance(value, tuple):
            value = list(value)
        value = self.read(value) if self.read else value
        problem = self._problem(value)
        if problem is None:
            return value
        shown, allowed = problem
        raise AlkdError(f"{key}: {shown} is not allowed; allowed: {allowed}")

    def _problem(self, value: Any) -> tuple[str, str] | None:
        """How the value is shown, and what is allowed in its place."""
        if value is None and self.null:
            return None
        kind = type(value).__name__
        if not is_a(value, *self.kinds):
            return (f"the value (not shown, {kind})" if self.secret else f"{value!r} ({kind})"), self.allowed
        shown = repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}..."
        if self.choices and not self._chosen(value):
            return shown, self.allowed + hint(value, self.choices)
        if isinstance(value, float) and value != value:
            return "nan", self.allowed
        wanted = self.check(value) if self.check else None
        if wanted is None:
            return None
        return shown, self.allowed if isinstance(self.check, Rule) else wanted + (
            " or ~" if self.null else ""
        )

    def _chosen(self, value: Any) -> bool:
        if self.any_case and isinstance(value, str):
            return value.lower() in [str(choice).lower() for choice in self.choices]
        return value in self.choices

    def parse(self, key: str, text: str) -> Any:
        """The value that ``text`` stands for (command line, hyper-parameter search). Nothing is evaluated.

        ``None``, ``~`` and an empty text are no value. A setting that only takes text is taken as it stands.

        Raises:
            AlkdError: text that is no YAML, where the setting takes more than text.
        """
        only_text = self.kinds == (str,)
        if only_text and not self.null:
            return text  # `null` is the name of a teacher
        if is_null(text):
            return None
        return text if only_text else read_yaml(text, f"{key}: {text!r}")


def setting(default: Any, *types: type, choices: Iterable[Any] = (), **spec: Any) -> Any:
    """A field of a frozen dataclass with its ``Field`` (``fields_of`` gives it), which has the arguments of
    ``Field``."""
    meta = {"setting": Field(default, types, choices=tuple(choices), **spec)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def fields_of(group: type) -> dict[str, Field]:
    """The settings of a group, in their order."""
    return {f.name: f.metadata["setting"] for f in dataclasses.fields(group) if "setting" in f.metadata}
