"""Stores on network file systems: which those are, and what is refused there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from recbole_alkd.labels import LabelStore, claims, file
from recbole_alkd.labels.claims import Claims
from recbole_alkd.labels.file import LabelStoreError
from recbole_alkd.labels.network import WORKER, machines, network_file_system
from recbole_alkd.labels.owner import this_process

MOUNTS = """\
/dev/sda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/local tmpfs rw 0 0
//box/a\\040b /mnt/a\\040b cifs rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
share /mnt/c 9p rw 0 0
/dev/sdb /over ext4 rw 0 0
server:/over /over nfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/labels.sqlite", None),
        ("/home/me/labels.sqlite", "nfs4"),
        ("/home/local/labels.sqlite", None),
        ("/homework/labels.sqlite", None),
        ("/mnt/a b/labels.sqlite", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/mnt/c/x", None),
        ("/over/x", "nfs"),
    ],
)
def test_the_file_system_of_a_place(tmp_path: Path, place: str, kind: str | None) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert network_file_system(Path(place), tmp_path / "mounts") == kind


def test_where_mounts_cannot_be_seen_nothing_is_said(tmp_path: Path) -> None:
    assert network_file_system(Path("/home"), tmp_path / "none") is None
    assert network_file_system(tmp_path) is None  # this machine's own disk


def test_containers_of_one_machine_are_one_machine() -> None:
    assert machines(["boot:a:pid:[1]/5/7.x", "boot:a:pid:[2]/6/8.y"]) == {"boot:a"}
    assert len(machines([this_process(), "host:other/5/-.z", "an earlier release's name"])) == 2


def test_a_worker_does_not_open_a_store_over_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "network_file_system", lambda path: "nfs4")
    with LabelStore(tmp_path / "labels.sqlite"):
        pass  # the driver may
    monkeypatch.setenv(WORKER, "1")
    with pytest.raises(LabelStoreError, match=r"network file system \(nfs4\); a worker of another process"):
        LabelStore(tmp_path / "labels.sqlite")
    monkeypatch.setattr(file, "network_file_system", lambda path: None)
    with LabelStore(tmp_path / "labels.sqlite"):
        pass


@pytest.mark.parametrize(
    ("kind", "owner", "until", "refused"),
    [
        ("nfs4", "boot:another:pid:[1]/5/7.x", 60, True),
        ("nfs4", "boot:another:pid:[1]/5/7.x", -60, False),  # it has lapsed
        ("nfs4", "this", 60, False),
        (None, "boot:another:pid:[1]/5/7.x", 60, False),
    ],
)
def test_two_machines_do_not_label_into_one_store_over_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, owner: str, until: float, refused: bool
) -> None:
    monkeypatch.setattr(claims, "network_file_system", lambda path: kind)
    owner = this_process() + ".x" if owner == "this" else owner
    with LabelStore(tmp_path / "labels.sqlite") as store:
        values = ["k", owner, time.time() + until]
        connection = store.connection()
        insert = "INSERT INTO claims (key, owner, until) VALUES (?, ?, ?)"
        connection.write(lambda db: db.execute(insert, values))
        connection.close()
        if refused:
            with pytest.raises(LabelStoreError, match=r"\(nfs4\), and another machine is labelling"):
                Claims(store)
        else:
            with Claims(store):
                pass
