"""Data flows one way: a module imports only from the rooms that stand before its own,
and heavy libraries only when used."""

from __future__ import annotations

import ast

import pytest
from process import ROOT

ROOMS = [
    "threads", "bars", "help_words", "files", "settings", "tensors", "memory", "processes", "shared_steps",
    "compat", "registry", "statistics", "labels", "llm", "data", "model", "active", "teacher", "distill",
    "labelling", "learner", "trainer", "serving", "bench", "tune", "testing",
]  # fmt: skip
SEE_EVERYTHING = {
    "__init__",
    "late",
    "whole",
    "moved",
    "checks",
    "file_checks",
    "api_reference",
    "doctor",
    "door",
    "listing",
    "reference",
    "plugin",
    "together",
    "quick_start",
    "cli",
    "recbole_commands",
}
HEAVY = {
    "transformers",
    "peft",
    "openai",
    "ray",
    "matplotlib",
    "sklearn",
    "accelerate",
    "gguf",
    "safetensors",
    "wandb",
    "mcp",
    "optuna",
    "pyarrow",
    "pyspark",
}
TRAINING = {"torch", "recbole", "pandas", "scipy", "yaml"}
MAKERS = ("make",)  # modules of serving that make what the others read: they see everything below
LOADED_LATE = {"lora_trainer.py"}  # imported inside of the function that trains
PACKAGE = ROOT / "recbole_alkd"
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(parts):
    return parts[0].removesuffix(".py")


def imports(tree, whole):
    """Names imported at the top level of a module (everywhere, if ``whole``)."""
    for node in ast.walk(tree) if whole else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path):
    parts = path.relative_to(PACKAGE).parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name not in LOADED_LATE:
        assert not {name.split(".")[0] for name in imports(tree, whole=False)} & HEAVY
    room = room_of(parts)
    if room in SEE_EVERYTHING:
        return
    for name in imports(tree, whole=True):
        if room == "serving" and not path.name.startswith(MAKERS):
            assert name.split(".")[0] not in TRAINING, f"{path.name} serves, and would need {name} to do so"
        if name.startswith("recbole_alkd."):
            other = name.split(".")[1]
            if room == "serving" and not path.name.startswith(MAKERS):
                good = (
                    other in ("files", "labels", "serving", "tensors")
                    or name == "recbole_alkd.settings.error"
                )
                assert good, f"{path.name} serves, and imports {name}"
            if room == "bench" and other in ("plugin", "checks"):  # a benchmark runs RecBole as a user does
                continue
            if room == "testing" and other == "plugin":  # so does a whole run on toy data
                continue
            assert other in ROOMS and ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_evaluated_or_unpickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            unsafe = called in {"eval", "exec", "pickle.load", "pickle.loads", "torch.load"}
            assert not unsafe or "weights_only=True" in ast.unparse(node)


def imported_by(path):
    """The modules of this package that a module imports anywhere: in functions and for types too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def circles(graph):
    """Groups of modules that reach each other: what is left when all without a way in or out are
    taken away."""
    graph = {name: set(others) for name, others in graph.items()}
    while ends := {
        name for name, others in graph.items() if not others or not any(name in of for of in graph.values())
    }:
        graph = {name: others - ends for name, others in graph.items() if name not in ends}
    return graph


def test_no_imports_go_in_a_circle():
    named = {".".join(("recbole_alkd", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in MODULES}
    named = {name.removesuffix(".__init__"): path for name, path in named.items()}
    graph = {
        name: {other for other in imported_by(path) & named.keys() if not f"{name}.".startswith(f"{other}.")}
        for name, path in named.items()
    }
    assert len(graph) == len(MODULES) and sum(map(len, graph.values())) > 2 * len(graph), (
        "the imports were not read"
    )
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b": {"c"}, "c": {"b"}}
    assert circles(graph) == {}


LONG = 300  # lines of a file with one subject
REASON = "More than 300 lines:"  # how the sentence of a module's docstring begins that says why it is longer


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_long_file_says_why_it_is_one(path):
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    lines = text.count("\n")
    if lines > LONG:
        assert REASON in docstring, f"{lines} lines: split it, or say why not ({REASON} ...) in its docstring"
    else:
        assert REASON not in docstring, f"{lines} lines are not more than {LONG}: the docstring is not true"
