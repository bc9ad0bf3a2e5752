"""The folder of a bundle: which files it has, what is checked before any of them is used, and how it is
written.

``manifest.json`` names the format, its version, and the size and SHA-256 of every other file. Names that are
not in ``FILES`` are refused, so that no manifest can lead out of its folder; so are links. Nothing in a
bundle is executed or unpickled.

What is hashed when: at loading every file up to ``HASHED`` bytes, and the sizes of all; with ``verify`` every
file. Hashing a table of 780 MB takes about a second, which is more than loading it, and a changed number in a
large file can give a wrong recommendation but no harm: every read is checked against the ends of its array.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_alkd.files import PART, json_text, move_whole
from recbole_alkd.settings.error import AlkdError

FORMAT = "recbole_alkd bundle"
VERSION = 1
MANIFEST = "manifest.json"
STUDENT, ITEMS, LOOKUP, CARD = "student.safetensors", "items.jsonl", "items.safetensors", "README.md"
REASONS, ENCODER, ONNX, COUNTS = "reasons.safetensors", "encoder.onnx", "model.onnx", "counts.npz"
PAIRS = "counts.safetensors"
NEEDED = (STUDENT, ITEMS, LOOKUP)
FILES = (*NEEDED, CARD, REASONS, ENCODER, ONNX, COUNTS, PAIRS)
HASHED = 1 << 20  # bytes: files up to this size are hashed whenever a bundle is loaded
_LONGEST = 1 << 24  # bytes of a manifest that are read


def read_manifest(folder: Path, verify: bool = False) -> dict[str, Any]:
    """The manifest of a bundle whose files are what it says they are.

    Args:
        folder: the bundle. verify: hash every file, not only those up to ``HASHED`` bytes.

    Raises:
        AlkdError: the folder is no bundle, one of an older or newer format, or damaged, which names the file.
    """
    file = folder / MANIFEST
    if not file.is_file():
        allowed = "allowed: a bundle, as `recbole-alkd export` makes one, or the folder of a run that has one"
        raise AlkdError(f"{folder}: no {MANIFEST} in it; {allowed}")
    _refuse_link(file)
    try:
        with open(file, "rb") as stream:
            content = stream.read(_LONGEST + 1)
        manifest = json.loads(content) if len(content) <= _LONGEST else None
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise AlkdError(f"{file}: not readable as a JSON mapping; the bundle is damaged")
    if manifest.get("format") != FORMAT:
        raise AlkdError(
            f"{file}: format {manifest.get('format')!r} is not that of a bundle; allowed: {FORMAT!r}"
        )
    version = manifest.get("version")
    if version != VERSION or isinstance(version, bool):
        older = isinstance(version, int) and version < VERSION
        what = "older" if older else "newer" if isinstance(version, int) else "unknown"
        how = "export the run again with this package" if older else "use a newer recbole_alkd"
        raise AlkdError(
            f"{file}: a bundle of the {what} format version {version!r}; this package reads {VERSION}: {how}"
        )
    if not isinstance(manifest.get("student"), dict):
        raise AlkdError(f"{file}: no mapping 'student'; the bundle is damaged")
    _check_files(folder, manifest.get("files"), verify)
    return manifest


def write_bundle_folder(
    out: Path, content: Mapping[str, Any], fill: Callable[[Path], None], replace: bool = False
) -> Path:
    """Write a bundle, whole or not at all: the folder appears under its name when everything in it is on the
    disk.

    Args:
        out: the folder. content: the manifest, but for format, version and files.
        fill: writes the files into the folder that it is given.
        replace: whether a bundle that is there is replaced; nothing else ever is.

    Raises:
        AlkdError: ``out`` is there.
    """
    if os.path.lexists(out):
        if not replace:
            raise AlkdError(f"{out} is there already; allowed: a folder that is not there")
        if not (out / MANIFEST).is_file():
            raise AlkdError(f"{out} is there and is no bundle; it is not replaced")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(3)}{PART}")
    work.mkdir()
    try:
        fill(work)
        files = {
            name: {"bytes": (work / name).stat().st_size, "sha256": digest(work / name)}
            for name in _names(work)
        }
        manifest = {"format": FORMAT, "version": VERSION, **content, "files": files}
        (work / MANIFEST).write_text(
            json_text(manifest, indent=1) + "\n", encoding="utf-8"
        )
        if not os.path.lexists(out):
            move_whole(work, out)
            return out
        before = out.with_name(f"{work.name}.before")
        os.replace(out, before)
        move_whole(work, out)
        shutil.rmtree(before, ignore_errors=True)
        return out
    finally:
        shutil.rmtree(work, ignore_errors=True)


def copy_bundle(bundle: Path, out: Path) -> Path:
    """Copy a bundle whose every file is what its manifest says."""
    manifest = read_manifest(bundle, verify=True)

    def fill(folder: Path) -> None:
        for name in manifest["files"]:
            shutil.copyfile(bundle / name, folder / name)
            if digest(folder / name) != manifest["files"][name].get("sha256"):
                raise AlkdError(f"{bundle / name}: it was changed while it was copied; try again")

    content = {key: value for key, value in manifest.items() if key not in ("format", "version", "files")}
    return write_bundle_folder(out, content, fill)


def digest(file: Path) -> str:
    """SHA-256 of a file, as hex."""
    sha256 = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def _names(folder: Path) -> Iterable[str]:
    return (name for name in FILES if (folder / name).exists())


def _check_files(folder: Path, files: Any, verify: bool) -> None:
    place = folder / MANIFEST
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise AlkdError(f"{place}: no mapping 'files'; the bundle is damaged")
    for name in files:
        if name not in FILES:
            raise AlkdError(f"{place}: file {name!r} is no part of a bundle; allowed: {', '.join(FILES)}")
    for name in NEEDED:
        if name not in files:
            raise AlkdError(f"{place}: {name} is missing among its files; the bundle is damaged")
    for name, entry in files.items():
        file = folder / name
        _refuse_link(file)
        if not file.is_file():
            raise AlkdError(f"{file}: no such file; the bundle is damaged")
        size = file.stat().st_size
        if size != entry.get("bytes"):
            raise AlkdError(
                f"{file}: {size} bytes, and {entry.get('bytes')!r} in {MANIFEST}; "
                "the bundle is damaged or was "
                "changed"
            )
        if (verify or size <= HASHED) and digest(file) != entry.get("sha256"):
            raise AlkdError(
                f"{file}: its SHA-256 is not the one in {MANIFEST}; the bundle is damaged or was changed"
            )


def _refuse_link(file: Path) -> None:
    if file.is_symlink():
        raise AlkdError(f"{file}: a link, which could lead out of the bundle; allowed: regular files")
