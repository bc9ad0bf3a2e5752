"""What a run has spent, in all its starts, and the budget that counts it."""

import os
from pathlib import Path

import pytest
from disks import fill, small_disk

from recbole_alkd.labels import Budget
from recbole_alkd.labels.cost import Cost
from recbole_alkd.labels.ledger import FILE, Ledger
from recbole_alkd.settings.error import AlkdError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / FILE


def test_nothing_is_written_before_something_is_spent(path: Path) -> None:
    ledger = Ledger(path)
    budget = Budget(5, tokens=100, ledger=ledger)
    assert budget.left.tokens == 100
    budget.reserve(50).release()
    budget.reserve().settle()  # reused, free
    assert not path.exists() and ledger.spending.starts == 0


def test_a_new_start_goes_on_with_what_was_left(path: Path) -> None:
    budget = Budget(5, tokens=100, usd=1.0, ledger=Ledger(path))
    request = budget.reserve(40, 0.4)
    request.begin()
    request.settle(30, 0.1)
    assert (budget.spent.tokens, budget.left.tokens) == (30, 70)

    again = Budget(5, tokens=100, usd=1.0, ledger=Ledger(path))
    assert (again.spent.tokens, again.spent.usd, again.left.tokens, again.left.usd) == (30, 0.1, 70, 0.9)
    assert again.spent.labels == 0
    assert again.reserve(71) is None
    assert again.refusal == (
        "budget_tokens: 30 of 100 spent, 30 of them by earlier starts of this run, 70 left, "
        "the next request may take 71"
    )
    second = again.reserve(60)
    second.begin()
    second.settle(60)
    spent = Ledger(path).spending
    assert (spent.tokens, spent.earlier_tokens, spent.starts, spent.unknown) == (90, 90, 2, 0)


def test_rounds_of_one_start_share_the_ledger(path: Path) -> None:
    ledger = Ledger(path)
    first = Budget(5, tokens=100, ledger=ledger).reserve(40)
    first.begin()
    first.settle(30)
    second = Budget(5, tokens=100, ledger=ledger)
    assert second.left.tokens == 70 and ledger.spending.earlier_tokens == 0
    assert "earlier starts" not in str(second.reserve(71) or second.refusal)


def test_a_request_without_an_end_is_counted_with_the_most_that_it_may_have_taken(path: Path) -> None:
    budget = Budget(9, tokens=500, ledger=Ledger(path))
    for key in ("stored", "unknown", "not sent"):
        request = budget.reserve(100, key=key)
        if key != "not sent":
            request.begin()
    # killed here: the answer to one of them was stored before, its price not noted yet
    ledger = Ledger(path, lambda keys: {key: Cost(30) for key in keys if key == "stored"})
    assert (ledger.spending.tokens, ledger.spending.unknown, ledger.spending.unknown_tokens) == (130, 1, 100)
    assert Budget(9, tokens=500, ledger=ledger).left.tokens == 370
    assert Ledger(path).spending.tokens == 200  # where the store tells nothing


def test_a_second_request_and_one_that_broke_off_are_counted(path: Path) -> None:
    budget = Budget(9, tokens=500, usd=5, ledger=Ledger(path))
    request = budget.reserve(100, 1.0)
    request.begin()
    assert request.extend(50, 0.5)
    assert Ledger(path).spending.tokens == 150  # killed here
    request.forfeit(100, 1.0)
    assert Ledger(path).spending.tokens == 150
    request.settle(20, 0.2)
    assert (Ledger(path).spending.tokens, Ledger(path).spending.usd) == (120, 1.2)
    lost = budget.reserve(100)
    lost.begin()
    lost.forfeit(60)
    lost.release()
    assert Ledger(path).spending.tokens == 180 == budget.spent.tokens


def test_money_adds_up_in_decimals(path: Path) -> None:
    budget = Budget(20, usd=1, ledger=Ledger(path))
    for _ in range(10):
        request = budget.reserve(usd=0.1)
        request.begin()
        request.settle(usd=0.1)
    assert Ledger(path).spending.usd == 1.0
    assert Budget(20, usd=1, ledger=Ledger(path)).left.usd == 0


@pytest.mark.parametrize(
    "damage",
    [
        b'{"id": "1.3", "key": "k", "tok',
        b"\0" * 5000,
        b"\xff\xfe\n",
        b"[1]\n",
        b'{"id": "1.9", "key": "k", "open": 1, "tokens": -5, "usd": null}\n',
    ],
)
def test_damaged_lines_are_counted_and_nothing_else_is_lost(path: Path, damage: bytes) -> None:
    request = Budget(9, ledger=Ledger(path)).reserve(10)
    request.begin()
    request.settle(10)
    with path.open("ab") as stream:
        stream.write(damage)
    ledger = Ledger(path)
    assert ledger.spending.tokens == 10 and ledger.unreadable == (0 if damage.startswith(b"\0") else 1)
    ledger.note(None, "k", 7, None, open_=False)
    assert Ledger(path).spending.tokens == 17  # half a line does not swallow the next one


def test_what_cannot_be_noted_is_not_sent(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk / FILE
        budget = Budget(1000, tokens=10**6, ledger=Ledger(path))
        first, second = budget.reserve(10), budget.reserve(10)
        first.begin()
        filling = fill(disk)
        with pytest.raises(AlkdError, match=r"cannot be noted in .* nothing more is asked") as error:
            for _ in range(1000):
                second = budget.reserve(10)
                second.begin()
        assert "\n" not in str(error.value)
        first.settle(3)  # no error: the answer is there, and the most that it may have taken stays noted
        noted = Ledger(path).spending.tokens
        filling.unlink()
        second.begin()
        assert Ledger(path).spending.tokens == noted + 10
        fill(disk)
        extended = 0
        while second.extend(10):  # no error either: it is asked while the first answer is in hand
            extended += 10
        assert extended < 10_000 and Ledger(path).spending.tokens == noted + 10 + extended


def test_a_ledger_that_is_a_folder_is_told(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(AlkdError, match="cannot be read"):
        Ledger(path)
    assert os.path.isdir(path)


@pytest.mark.parametrize("tokens", [11, 10**30])
def test_an_overdrawn_reservation_says_so(tokens: int) -> None:
    budget = Budget(9, tokens=100, usd=1)
    request = budget.reserve(10, 0.1)
    request.settle(tokens, 0.1)
    assert request.overdrawn == f"{tokens} tokens were taken where 10 were reserved"
    assert budget.left.tokens == max(0, 100 - tokens)
    within = Budget(9, usd=1).reserve(0, 0.3)
    within.settle(0, 0.1 + 0.2)  # .30000000000000004
    assert within.overdrawn is None


def test_amounts_that_are_none_are_refused() -> None:
    request = Budget(9).reserve(10)
    for usd in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="usd"):
            request.settle(1, usd)
