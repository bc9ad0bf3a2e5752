"""What the sampled softmax takes beside its rivals, in turn; prints the table of docs/performance.md."""

import time
from statistics import median

import pytest
import torch
from torch.nn.functional import cross_entropy

from recbole_alkd.model.sampled_softmax import sampled_loss

ROWS, DRAWN, ITEMS, ROUNDS = 512, 1024, 8475, 15


def by_autograd(session, table, target, drawn, log_expected):
    """The same loss from torch's own pieces, over a (B, 1 + K) matrix of logits."""
    others = (session @ table[drawn].T - log_expected).masked_fill(target.unsqueeze(1) == drawn, -torch.inf)
    logits = torch.cat([(session * table[target]).sum(1, keepdim=True), others], dim=1)
    return cross_entropy(logits, torch.zeros_like(target))


def in_one_pass(session, table, target, drawn, log_expected):
    return sampled_loss(session, table[target], table[drawn], target, drawn, log_expected)


def over_all_items(session, table, target, drawn, log_expected):
    return cross_entropy(session @ table.T, target)


@pytest.mark.benchmarks
def test_cost_of_a_loss_and_its_gradient(capsys):
    torch.manual_seed(0)
    target, drawn = torch.randint(1, ITEMS, (ROWS,)), torch.randint(1, ITEMS, (DRAWN,))
    log_expected = torch.randn(DRAWN)
    rivals = (over_all_items, by_autograd, in_one_pass)
    with capsys.disabled():
        print(f"\n{'':22}" + "".join(f"{rival.__name__:>18}" for rival in rivals) + "   ms")
        for size in (10, 100):
            for words, scale in (("", 1.0), (", sharp logits", 20 / size**0.5)):
                session = torch.randn(ROWS, size) * scale
                table = torch.randn(ITEMS, size) * scale**0.5
                taken = {rival: [] for rival in rivals}
                for _ in range(ROUNDS):
                    for rival in rivals:
                        inputs = session.clone().requires_grad_(), table.clone().requires_grad_()
                        begin = time.perf_counter()
                        rival(*inputs, target, drawn, log_expected).backward()
                        taken[rival].append(1000 * (time.perf_counter() - begin))
                print(
                    f"{f'dimension {size}{words}':22}"
                    + "".join(f"{median(times):18.1f}" for times in taken.values())
                )
        one, other = (rival(session, table, target, drawn, log_expected).item() for rival in rivals[1:])
    assert one == pytest.approx(other, rel=1e-5)
