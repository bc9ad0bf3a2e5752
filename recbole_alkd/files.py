"""Where the shipped files are; files that are written whole or not at all, also when the power fails;
checkpoints, read safely.

A new file is written beside its place, forced to the disk, and then renamed. Without the second step a file
system may keep the rename and lose the content, which leaves an empty file under the right name.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

PART = ".part"  # the end of the name of a file that is being written
_MARKER = Path("model", "ALKDRec.yaml")


def properties() -> Path:
    """The folder of our YAML files: inside the package (wheel, sdist) or beside it (checkout,
    editable install).

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "properties", package.parent / "properties"):
        # the marker keeps some other project's `properties` in site-packages from being taken
        if (folder / _MARKER).is_file():
            return folder
    raise FileNotFoundError(
        f"recbole_alkd has lost its folder of properties (looked in {package} and beside it): reinstall it"
    )


@contextlib.contextmanager
def whole_path(file: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a new file, for whoever writes by name; what was written there becomes ``file`` when the
    block ends well, and on an error ``file`` stays as it was.

    Raises:
        OSError: as ``os.replace`` does, and the block; a full disk names the file too.
    """
    file = Path(file)
    # two processes, even of two machines with the same process id, never write the same part
    part = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(3)}{PART}")
    try:
        yield part
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, file)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    sync(file.parent)


@contextlib.contextmanager
def whole_file(file: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An open binary stream whose content becomes ``file`` when the block ends well;
    on an error ``file`` stays as it was.

    Raises:
        OSError: as ``open`` and ``write`` do; a full disk names the file too.
    """
    with whole_path(file) as part, open(part, "xb") as stream:
        yield stream


def write_whole(file: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write ``content`` (text as UTF-8) into ``file``, whole or not at all."""
    with whole_file(file) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
    return Path(file)


def json_text(content: Any, indent: int | None = None) -> str:
    """``content`` as JSON that every reader takes: a number that is none (NaN, infinity) is null."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def json_line(content: Any) -> str:
    """``content`` as a line of a JSON lines file, in ASCII: texts of others may hold half a surrogate pair,
    which UTF-8 has no bytes for."""
    return json.dumps(_finite(content), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(file: str | os.PathLike[str], content: Any) -> Path:
    """Write a JSON file (``json_text``), whole or not at all."""
    return write_whole(file, json_text(content, indent=1) + "\n")


def write_npz(file: str | os.PathLike[str], arrays: dict[str, Any], compressed: bool = True) -> Path:
    """Write a ``.npz`` that needs no pickle, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()  # a zip is not written in one go, and the stream of a whole file is
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return write_whole(file, buffer.getvalue())


def write_picture(figure: Any, file: str | os.PathLike[str], dpi: int) -> Path:
    """Write a figure of matplotlib, whole or not at all; the end of the file's name is its format, without
    one PNG.

    Raises:
        OSError: as ``whole_file``. ValueError: matplotlib knows no such format.
    """
    file = Path(file)
    with whole_file(file) as stream:
        figure.savefig(stream, format=file.suffix.lower().removeprefix(".") or "png", dpi=dpi)
    return file


def move_whole(work: Path, final: Path) -> None:
    """Rename the folder ``work`` to ``final``, with everything in it on the disk first.
    OSError as ``os.replace``."""
    for folder, _, names in os.walk(work):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    os.replace(work, final)
    sync(final.parent)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save_checkpoint(state: dict[str, Any], path: str) -> None:
    """Write ``state`` so that ``torch.load(path, weights_only=True)`` reads it, whole or not at all."""
    import torch

    with whole_file(path) as stream:
        torch.save(state, stream, pickle_protocol=2)


def load_checkpoint(path: str, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint with the safe reader. ValueError that names the file when that cannot read it."""
    import torch

    try:
        # an explicit True counts more than TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment
        state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise refusal(path) from error
    return state


def refusal(path: str) -> ValueError:
    """The error for a checkpoint that the safe reader cannot read."""
    return ValueError(
        f"checkpoint {path!r} was not written after `import recbole_alkd` (or is damaged) and reading it "
        "could run code: "
        "train it anew, or set `trust_checkpoint: True` if the file is your own"
    )
