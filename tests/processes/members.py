"""What processes do in tests of how they are started: by name, as each is an interpreter of its own."""

from __future__ import annotations

import os
import signal
import time

from recbole_alkd.settings.error import AlkdError


def told(error):
    return str(error), 2 if isinstance(error, AlkdError) else 1


def talk():
    """Every way in which the processes of a group speak with each other; all see the same."""
    import torch

    from recbole_alkd.processes.group import Group, place

    group = Group(*place())
    seen = {"rank": group.rank, "size": group.size, "local_rank": group.local_rank}
    made = []
    seen["led"] = group.from_leader(
        lambda: made.append(group.size) or {"a": [1, 2.5, None], "t": torch.arange(3), "s": "ü"}
    )["a"]
    seen["made"] = made
    seen["gathered"] = group.gather({"rank": group.rank})
    seen["any"] = [group.any(group.rank == 1), group.any(False)]
    seen["added"] = group.added(torch.tensor([1.0, group.rank])).tolist()
    seen["largest"] = group.largest(torch.tensor([group.rank, -group.rank])).tolist()
    seen["side"] = [one.tolist() for one in group.side_by_side(torch.tensor([group.rank]))]
    seen["threads"] = os.environ["OMP_NUM_THREADS"]
    every = group.gather(seen)
    return every


def fail(rank, kind, where=None):
    """One process fails while the others wait for it."""
    import torch

    from recbole_alkd.processes.group import Group, place

    group = Group(*place())
    group.any(True)
    if where:
        with open(os.path.join(where, f"pid{group.rank}"), "w") as stream:
            stream.write(str(os.getpid()))
    if group.rank == rank:
        time.sleep(0.5)
        if kind == "mistake":
            raise AlkdError("epochs: -1 is not allowed; allowed: at least 1")
        if kind == "error":
            raise KeyError("nobody foresaw this")
        if kind == "exit":
            os._exit(7)
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    for _ in range(2):
        group.added(torch.ones(1))
    return "never"


def sleep(folder):
    """Say who works, then work for long."""
    from recbole_alkd.processes.group import Group, place

    group = Group(*place())
    with open(os.path.join(folder, f"pid{group.rank}"), "w") as stream:
        stream.write(str(os.getpid()))
    group.any(True)
    if group.leads:
        time.sleep(600)
    group.any(True)


def linger(rank):
    """One process has a thread that does not end."""
    import threading

    from recbole_alkd.processes.group import place

    if place()[0] == rank:
        threading.Thread(target=time.sleep, args=(600,)).start()
    return "done"
