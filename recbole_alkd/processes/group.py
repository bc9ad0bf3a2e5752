"""The processes of a run, seen by one of them: the one place that knows how many there are.

Every process makes the same steps on the same data. Process 0 leads: it alone selects, asks, decides what is
random, and writes; the others get what came of it (``from_leader``). A step of training is shared: each
process takes a part of the batch's rows, and the gradients are added (``shared_steps.py``).
RecBole's own distributed branches, its samplers and its gathering of metrics are not used.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from recbole_alkd.processes.started import starter
from recbole_alkd.settings.error import AlkdError

if TYPE_CHECKING:  # a process that only starts others does not load torch
    import torch
    from torch import Tensor

T = TypeVar("T")


class Group:
    """The processes that train together.

    Args:
        rank: of this process, from 0. count: how many there are.
        local_rank: of this process among those of its machine. device: on which tensors are added.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, local_rank: int = 0, device: torch.device | None = None
    ) -> None:
        self.rank, self.count, self.local_rank = rank, count, local_rank
        self._alone = 0
        self._adders: Any = None  # a group of torch's for tensors on GPUs
        if count > 1 and device is not None and device.type == "cuda":
            from torch import distributed

            self._adders = distributed.new_group(backend="nccl")

    @classmethod
    def of(cls, config: Any) -> Group:
        """The processes of a run, which ``launch`` has started; one where nobody has.

        Raises:
            AlkdError: processes that RecBole has started by itself, or that have not joined each other; more
                than a batch has rows for.
        """
        if not config["single_spec"]:
            raise AlkdError(
                "nproc: ALKDRec starts its own processes; allowed: `recbole-alkd run --nproc=N`, or "
                "run_recbole_alkd(..., nproc=N)"
            )
        rank, count, local = place()
        by = starter()
        if count == 1 and by is not None:
            raise AlkdError(
                f"WORLD_SIZE: {by.size} processes were started by another program, such as torchrun; allowed "
                "so: `recbole-alkd run`, `recbole-alkd lora-curve`, run_recbole_alkd(...)"
            )
        rows = config["train_batch_size"]
        if count > 1 and rows < 2 * count:
            raise AlkdError(
                f"nproc: {count} processes with train_batch_size {rows}; allowed: at most "
                f"{max(rows // 2, 1)}, two rows of a batch each"
            )
        return cls(rank, count, local, config["device"])

    @property
    def size(self) -> int:
        """How many processes make the next step: 1 inside of ``alone``."""
        return 1 if self._alone else self.count

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The leader is one process meanwhile, and the others wait for what comes of it."""
        self._alone += 1
        try:
            yield
        finally:
            self._alone -= 1

    def from_leader(self, make: Callable[[], T]) -> T:
        """What ``make`` gives the leader, for everyone; it is called there and nowhere else.

        Numbers, text, tensors, and lists, tuples and dicts of them.
        """
        if self.size == 1:
            return make()
        value: Any = None
        if self.leads:
            with self.alone():
                value = make()
        return self._from(0, value)

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank; what a value may be: see ``from_leader``."""
        return [value] if self.size == 1 else [self._from(rank, value) for rank in range(self.count)]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        import torch

        return bool(self.added(torch.tensor([float(flag)])).item())

    def added(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; ``tensor`` holds it then."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(tensor, group=self._adders if tensor.is_cuda else None)
        return tensor

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest of all processes, element by element; ``tensor`` holds it then."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(
                tensor, distributed.ReduceOp.MAX, group=self._adders if tensor.is_cuda else None
            )
        return tensor

    def side_by_side(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, which have one shape, by rank."""
        import torch
        from torch import distributed

        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(parts, tensor.contiguous(), group=self._adders if tensor.is_cuda else None)
        return parts

    def part(self, count: int) -> tuple[slice, float]:
        """Which of ``count`` rows are this process's, and their share of all.

        Rows that do not give everyone two are everyone's, each at an equal share: losses look across the rows
        of a batch, and no process may be without.
        """
        if count < 2 * self.size:
            return slice(0, count), 1 / self.size
        begin, end = (k * count // self.size for k in (self.rank, self.rank + 1))
        return slice(begin, end), (end - begin) / count

    def seed_model(self, config: Any) -> None:
        """Seed the initial weights of a model as RecBole's ``run_recbole`` does, in all processes alike."""
        from recbole.utils import init_seed

        init_seed(config["seed"], config["reproducibility"])

    def _from(self, rank: int, value: Any) -> Any:
        """``value`` of process ``rank``, everywhere. Nothing is unpickled."""
        import torch
        from torch import distributed

        content = torch.empty(0, dtype=torch.uint8)
        if rank == self.rank:
            stream = io.BytesIO()
            torch.save(value, stream)
            content = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)
        length = torch.tensor([len(content)])
        distributed.broadcast(length, rank)
        if rank != self.rank:
            content = torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(content, rank)
        if rank == self.rank:
            return value
        return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)


def place() -> tuple[int, int, int]:
    """Rank of this process, how many there are, and its rank on its machine; (0, 1, 0) in a run of one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1, 0
    from recbole_alkd.processes.member import local_rank

    return distributed.get_rank(), distributed.get_world_size(), local_rank()
