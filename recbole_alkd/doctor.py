"""``recbole-alkd doctor``: what is here, what runs, and what to do about what does not."""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.llm.bundled import MINILM, cache_folder, find_bundled, minilm_folder
from recbole_alkd.settings.error import AlkdError

GOOD, NOTE, BAD = "ok", "note", "missing"
_NEEDED = ("recbole", "torch", "pandas", "numpy", "scipy", "transformers", "peft", "pyyaml")
_FOR = {
    "local": "the local LLM teacher", "api": "a teacher behind an API", "bench": "figures of benchmarks",
    "serve": "the service", "onnx": "export --format onnx", "mcp": "recbole-alkd mcp",
    "tune": "recbole-alkd tune", "ray": "labelling on several machines", "scale": "counting Parquet files",
    "dev": "the tests",
}  # fmt: skip
_LEAST_DISK = (
    2 * 2**30
)  # a run keeps tens of MB, the unpacked bundled LLM 270 MB; downloads of models need more


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: ok, note (a part does not run, or slowly) or missing (nothing runs without it).
        what: what it is. words: how it is here. fix: what to do about it, or empty.
    """

    state: str
    what: str
    words: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.state:<8}{self.what}: {self.words}" + (f"\n        -> {self.fix}" if self.fix else "")


def findings(folder: Path) -> Iterator[Finding]:
    """Look at versions, devices, models, extras, programs and places; nothing is changed or sent anywhere.

    Args:
        folder: where runs would be started; ``saved`` and ``alkd_labels`` lie below it.
    """
    yield from _packages()
    yield from _devices()
    yield from _models()
    yield from _extras()
    yield from _programs()
    yield from _places(folder)


def _packages() -> Iterator[Finding]:
    import platform

    from recbole_alkd import __version__

    yield Finding(
        GOOD, "recbole_alkd", f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    )
    for name in _NEEDED:
        version = _version(name)
        if version is None:
            yield Finding(BAD, name, "not installed", f"pip install {name}")
        else:
            yield Finding(GOOD, name, version)


def _devices() -> Iterator[Finding]:
    import torch

    threads = os.environ.get("OMP_NUM_THREADS")
    words = f"{os.cpu_count()} CPU cores, torch computes on {torch.get_num_threads()}"
    yield Finding(GOOD, "cores", words + (f" (OMP_NUM_THREADS={threads})" if threads else ""))
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "no GPU that torch sees" if built else "this torch is built for CPUs"
        yield Finding(NOTE, "GPU", f"{why}: everything runs on the CPU, LoRA and a local LLM slowly")
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        yield Finding(GOOD, f"GPU {number}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {bf16}")
    four = importlib.util.find_spec("bitsandbytes") is not None
    words = "bitsandbytes is there" if four else "bitsandbytes is not installed"
    fix = "" if four else "pip install bitsandbytes, for LLMs that do not fit otherwise"
    yield Finding(GOOD if four else NOTE, "4-bit weights", words, fix)


def _models() -> Iterator[Finding]:
    for name, find in (("bundled LLM", find_bundled), (f"encoder {MINILM}", minilm_folder)):
        try:
            yield Finding(GOOD, name, f"{find().name}, no download needed")
        except AlkdError as error:
            words, _, fix = str(error).partition("install with: ")
            yield Finding(NOTE, name, words.rstrip(" ;"), fix)
    keys = [key for key in ("OPENAI_API_KEY", "HF_TOKEN") if os.environ.get(key)]
    yield Finding(
        GOOD, "keys in the environment", ", ".join(keys) or "none (needed for an API that asks for one)"
    )


def _extras() -> Iterator[Finding]:
    from packaging.requirements import InvalidRequirement, Requirement

    wanted: dict[str, list[Any]] = {}
    try:
        lines = importlib.metadata.requires("recbole-alkd") or []
        names = importlib.metadata.metadata("recbole-alkd").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            NOTE, "extras", "not known: the package is on the path, but not installed", "pip install -e ."
        )
        return
    for line in lines:
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue
        for extra in names:
            if (
                need.marker
                and need.marker.evaluate({"extra": extra})
                and not need.marker.evaluate({"extra": ""})
            ):
                wanted.setdefault(extra, []).append(need)
    for extra in names:
        lacking = [need for need in wanted.get(extra, []) if not _fits(need)]
        what = f"extra {extra}" + (f" ({_FOR[extra]})" if extra in _FOR else "")
        if not lacking:
            empty = extra not in wanted
            yield Finding(NOTE if empty else GOOD, what, "not to be had on this Python" if empty else "there")
            continue
        named = ", ".join(f"{need.name} {need.specifier}".strip() for need in lacking)
        yield Finding(NOTE, what, f"without {named}", f"pip install 'recbole-alkd[{extra}]'")


def _programs() -> Iterator[Finding]:
    browser = next((name for name in ("chromium", "google-chrome", "chrome") if shutil.which(name)), None)
    words = "no Chromium on the path; only the tests of the pages need it, and are skipped"
    yield Finding(GOOD if browser else NOTE, "browser", browser or words)


def _places(folder: Path) -> Iterator[Finding]:
    places: dict[str, tuple[Callable[[], Path], str]] = {
        "runs": (lambda: folder / "saved", "start runs in another folder, or give --checkpoint_dir=FOLDER"),
        "labels": (lambda: folder / "alkd_labels", "start runs in another folder, or give --label_store"),
        "unpacked models": (cache_folder, "export XDG_CACHE_HOME=FOLDER, one that can be written"),
        "temporary files": (
            lambda: Path(tempfile.gettempdir()), "export TMPDIR=FOLDER, one that can be written",
        ),
    }  # fmt: skip
    for what, (find, elsewhere) in places.items():
        state = BAD if what == "runs" else NOTE
        try:
            place = find()
        except (OSError, RuntimeError) as error:  # no temporary folder can be written; no home is known
            yield Finding(state, what, f"no place is known: {_reason(error)}", elsewhere)
            continue
        there, refused = _nearest(place)
        if refused:
            words = f"{place} cannot be written: {_reason(refused)}"
            yield Finding(state, what, words, _fix_of(refused, there, elsewhere))
            continue
        free = shutil.disk_usage(there).free
        words = f"{place}, {free / 2**30:.1f} GiB free"
        low = free < _LEAST_DISK
        yield Finding(
            NOTE if low else GOOD, what, words, "make room: less than 2 GiB are free" if low else ""
        )


def _nearest(place: Path) -> tuple[Path, OSError | None]:
    """What of the path is there already, and why nothing can be written below it (None: it can)."""
    there = place.absolute()
    try:
        while True:
            try:
                os.lstat(there)
                return there, _refusal(there)
            except (FileNotFoundError, NotADirectoryError):
                there = there.parent
    except OSError as error:
        return there, error


def _refusal(folder: Path) -> OSError | None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _fix_of(error: OSError, there: Path, elsewhere: str) -> str:
    """What helps against an error that came up where a file was to be written in ``there``."""
    try:
        is_file, is_own = there.is_file(), there.stat().st_uid == os.geteuid()
    except OSError:
        return elsewhere
    if is_file:
        return f"{there} is a file: move it away, or {elsewhere}"
    if error.errno in (errno.EACCES, errno.EPERM) and is_own and not os.access(there, os.W_OK | os.X_OK):
        return f"chmod u+wx {shlex.quote(str(there))}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"make room there, or {elsewhere}"
    return elsewhere


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(need: Any) -> bool:
    version = _version(need.name)
    return version is not None and need.specifier.contains(version, prereleases=True)


def add_doctor_command(commands: Any) -> None:
    """``recbole-alkd doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, what runs here, and what to do about what does not",
        description="Say what is installed, what runs here, and what to do about what does not. Nothing is "
        "changed, downloaded or sent. The exit code is 1 where something that every run needs is missing.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    states = []
    for finding in findings(Path.cwd()):
        print(finding, flush=True)
        states.append(finding.state)
    print(f"{states.count(GOOD)} ok, {states.count(NOTE)} notes, {states.count(BAD)} missing")
    return 1 if BAD in states else 0
