"""Disks that are small or read-only, where the system lets a test make them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of that size at ``folder``."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_readonly(disk: Path) -> None:
    """Nothing on ``disk``, which ``small_disk`` made, can be written from now on."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def make_larger(disk: Path, kilobytes: int) -> None:
    """The same disk with more room."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte; the file that does it."""
    file = disk / "filling"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 512)
    return file
