"""Which file system a label store is on. SQLite's locks do not hold over a network file system: a store there
is for the processes of one machine at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

MOUNTS = Path("/proc/mounts")
NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs",
    "orangefs", "pvfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse",
    "fuse.beegfs",
}  # fmt: skip
WORKER = "RECBOLE_ALKD_WORKER"  # set in a process that answers for the driver on another machine


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the network file system that ``path`` is on, such as nfs4; None: it is on none, or that
    cannot be seen here (it is read from /proc/mounts, on Linux)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    best, kind = -1, ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        # spaces and the like stand there as octal numbers
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two mounts at one place the later one is seen
            best, kind = len(point), fields[2]
    return kind if kind in NETWORK else None


def machines(owners: Iterable[str]) -> set[str]:
    """The machines of processes, by the names that ``owner.this_process`` gave them; containers of one
    machine are one."""
    places = (owner.partition("/")[0].split(":") for owner in owners)
    return {":".join(place[:2]) for place in places if len(place) > 1}
