"""A group whose processes are threads: for tests of what a group does, without starting any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from recbole_alkd.processes.group import Group


class ThreadGroup(Group):
    def __init__(self, rank, count, table, barrier):
        super().__init__(rank, count)
        self._table, self._barrier = table, barrier

    def side_by_side(self, tensor):
        self._table[self.rank] = tensor.clone()
        self._barrier.wait()
        parts = [one.clone() for one in self._table]
        self._barrier.wait()
        assert len({part.shape for part in parts}) == 1
        return parts

    def added(self, tensor):
        return tensor.copy_(torch.stack(self.side_by_side(tensor)).sum(0))

    def largest(self, tensor):
        return tensor.copy_(torch.stack(self.side_by_side(tensor)).amax(0))


def together(count: int, work: Callable[[Group], object]) -> list:
    """What ``work`` gives each of ``count`` processes."""
    table, barrier = [None] * count, threading.Barrier(count, timeout=60)

    def one(rank):
        try:
            return work(ThreadGroup(rank, count, table, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
