"""The budget of one run: limits in labels, tokens and US dollars that no request can exceed.

An upper bound is reserved before a request leaves and replaced by what it really took when the answer is
there. What is spent plus what is reserved never passes a limit, however many requests are in flight.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from decimal import Decimal

from recbole_alkd.labels.ledger import Ledger
from recbole_alkd.settings.error import AlkdError


@dataclass(frozen=True)
class Amount:
    """Labels, tokens and US dollars; None where there is no limit."""

    labels: int | None
    tokens: int | None
    usd: float | None


class Reservation:
    """What one request may take at most. Ends with exactly one call of ``settle`` or ``release``.

    Attributes:
        overdrawn: one sentence when more was taken than was reserved, so that a limit may have been passed;
            else None.
    """

    def __init__(self, budget: Budget, wanted: dict[str, Decimal], key: str) -> None:
        self._budget, self._wanted, self._key = budget, wanted, key
        self._lost = dict.fromkeys(wanted, Decimal(0))
        self._note: str | None = None  # its name in the run's ledger
        self.overdrawn: str | None = None

    def begin(self) -> None:
        """The request leaves now: where the run keeps a ledger, it is noted there first.

        Raises:
            AlkdError: it cannot be noted; the request must not be sent.
        """
        self._budget._begin(self)

    def settle(self, tokens: int = 0, usd: float | None = None, labels: int = 1) -> None:
        """Replace the reservation by what was taken. ``labels=0``: nothing was paid,
        and no ranking came of it."""
        self._budget._end(self, _amounts(labels, tokens, usd))

    def release(self) -> None:
        """Give everything back: the request never left, or nothing was charged for it."""
        self._budget._end(self, _amounts(0, 0, None))

    def extend(self, tokens: int, usd: float | None = None) -> bool:
        """Reserve as much more for a second request; False, and nothing changes,
        when a limit would be passed."""
        return self._budget._extend(self, _amounts(0, tokens, usd))

    def forfeit(self, tokens: int, usd: float | None = None) -> None:
        """Count a part of the reservation as spent: the request broke off, and nobody knows whether it was
        charged."""
        self._budget._forfeit(self, _amounts(0, tokens, usd))

    @property
    def bound(self) -> Amount:
        """What is reserved now."""
        return _amount(self._wanted)


class Budget:
    """The limits of one run, shared by all its threads.

    Sums are decimal, so that ten times 0.1 USD is 1 USD.

    Args:
        labels: rankings the run may use, reused ones included.
        tokens: tokens it may spend on new ones; None: no limit.
        usd: US dollars it may spend on new ones; None: no limit.
        ledger: what the run has spent, in earlier starts too: it counts. None: only this budget counts.
    """

    def __init__(
        self, labels: int, tokens: int | None = None, usd: float | None = None, ledger: Ledger | None = None
    ) -> None:
        self._ledger = ledger
        self._limits = {
            "labels": Decimal(labels),
            "tokens": None if tokens is None else Decimal(tokens),
            "usd": None if usd is None else _money(usd),
        }
        self._spent = dict.fromkeys(self._limits, Decimal(0))
        self._earlier = dict(self._spent)
        if ledger:
            before = ledger.spending
            self._spent |= {"tokens": Decimal(before.tokens), "usd": _money(before.usd)}
            self._earlier |= {"tokens": Decimal(before.earlier_tokens), "usd": _money(before.earlier_usd)}
        self._held = dict.fromkeys(self._limits, Decimal(0))
        self._open: set[Reservation] = set()
        self._lock = threading.Lock()
        self._refusal: tuple[str, str] | None = None

    @property
    def limited(self) -> bool:
        """Whether tokens or US dollars have a limit."""
        return self._limits["tokens"] is not None or self._limits["usd"] is not None

    def reserve(
        self, tokens: int = 0, usd: float | None = None, labels: int = 1, key: str = ""
    ) -> Reservation | None:
        """Set aside what a request may take at most, or None when a limit would be passed (see ``ended``).

        Args:
            tokens: upper bound, prompt and completion together.
            usd: upper bound; None when nothing is charged.
            labels: rankings it will yield; 0 for a second try of the same instance.
            key: of the label, by which a later start of the run finds out what the request took.
        """
        wanted = _amounts(labels, tokens, usd)
        with self._lock:
            if not self._hold(wanted):
                return None
            reservation = Reservation(self, wanted, key)
            self._open.add(reservation)
            return reservation

    def _hold(self, wanted: dict[str, Decimal]) -> bool:
        for name, limit in self._limits.items():
            if limit is not None and self._spent[name] + self._held[name] + wanted[name] > limit:
                self._refusal = name, self._sentence(name, limit, wanted[name])
                return False
        for name, value in wanted.items():
            self._held[name] += value
        self._refusal = None
        return True

    def _begin(self, reservation: Reservation) -> None:
        with self._lock:
            noted = (
                reservation._note is not None
                or reservation not in self._open
                or not any(_costs(reservation._wanted))
            )
        if self._ledger and not noted:  # outside of the lock: the disk takes its time
            reservation._note = self._note(reservation, reservation._wanted, open_=True)

    def _note(self, reservation: Reservation, amounts: dict[str, Decimal], open_: bool) -> str:
        assert self._ledger is not None
        tokens, usd = (amounts[name] + reservation._lost[name] for name in ("tokens", "usd"))
        return self._ledger.note(
            reservation._note, reservation._key, int(tokens), float(usd) if usd else None, open_
        )

    def _extend(self, reservation: Reservation, more: dict[str, Decimal]) -> bool:
        with self._lock:
            if reservation not in self._open or not self._hold(more):
                return False
            wanted = {name: reservation._wanted[name] + value for name, value in more.items()}
            if reservation._note is not None:
                try:
                    self._note(reservation, wanted, open_=True)
                except AlkdError:  # the first answer is there and must not be lost to it
                    for name, value in more.items():
                        self._held[name] -= value
                    return False
            reservation._wanted = wanted
            return True

    def _forfeit(self, reservation: Reservation, part: dict[str, Decimal]) -> None:
        with self._lock:
            if reservation not in self._open:
                raise ValueError("this reservation has been settled or released before")
            for name, value in part.items():
                lost = min(value, reservation._wanted[name])
                reservation._wanted[name] -= lost
                reservation._lost[name] += lost
                self._held[name] -= lost
                self._spent[name] += lost

    def _end(self, reservation: Reservation, taken: dict[str, Decimal]) -> None:
        with self._lock:
            if reservation not in self._open:
                raise ValueError("this reservation has been settled or released before")
            self._open.remove(reservation)
            for name, value in taken.items():
                held = reservation._wanted[name]
                self._held[name] -= held
                self._spent[name] += value
                # sums of floats may differ in their last digit
                if name != "labels" and value > held * (1 + Decimal("1e-9")):
                    reservation.overdrawn = (
                        f"{value:f} {_UNITS[name]} were taken where {held:f} were reserved"
                    )
            if self._ledger and (
                reservation._note is not None or any(_costs(taken)) or any(_costs(reservation._lost))
            ):
                self._note(reservation, taken, open_=False)

    def _sentence(self, name: str, limit: Decimal, wanted: Decimal) -> str:
        taken, held = self._spent[name], self._held[name]
        before = self._earlier[name]
        earlier = f", {before:f} of them by earlier starts of this run" if before else ""
        flight = f" and {held:f} reserved by requests in flight" if held else ""
        left = max(Decimal(0), limit - taken - held)
        return (
            f"budget_{name}: {taken:f} of {limit:f} spent{earlier}{flight}, {left:f} left, "
            f"the next request may take {wanted:f}"
        )

    @property
    def ended(self) -> str | None:
        """The limit that refused the last reservation ("labels", "tokens" or "usd"), or None."""
        return self._refusal[0] if self._refusal else None

    @property
    def refusal(self) -> str | None:
        """One sentence on the last refusal: the limit, what is spent, what is left, what was wanted.
        None without one."""
        return self._refusal[1] if self._refusal else None

    @property
    def spent(self) -> Amount:
        """What has been taken by settled reservations."""
        with self._lock:
            return _amount(self._spent)

    @property
    def left(self) -> Amount:
        """What can still be reserved. Zero, never negative."""
        with self._lock:
            return _amount(
                {
                    name: None
                    if limit is None
                    else max(Decimal(0), limit - self._spent[name] - self._held[name])
                    for name, limit in self._limits.items()
                }
            )


_UNITS = {"tokens": "tokens", "usd": "USD"}


def _costs(amounts: dict[str, Decimal]) -> tuple[Decimal, Decimal]:
    return amounts["tokens"], amounts["usd"]


def _money(usd: float) -> Decimal:
    return Decimal(repr(float(usd)))


def _amounts(labels: int, tokens: int, usd: float | None) -> dict[str, Decimal]:
    amounts = {
        "labels": Decimal(labels),
        "tokens": Decimal(int(tokens)),
        "usd": Decimal(0) if usd is None else _money(usd),
    }
    for name, value in amounts.items():
        if not value.is_finite() or value < 0:
            raise ValueError(f"{name}: {value} is not allowed; allowed: a number of at least 0")
    return amounts


def _amount(values: dict[str, Decimal] | dict[str, Decimal | None]) -> Amount:
    labels, tokens, usd = (values[name] for name in ("labels", "tokens", "usd"))
    return Amount(
        None if labels is None else int(labels),
        None if tokens is None else int(tokens),
        None if usd is None else float(usd),
    )
