"""Games whose solution is known exactly, in Fractions."""

from __future__ import annotations

from fractions import Fraction

HALF = Fraction(1, 2)


def inverse(n: int, mu: int = 1) -> list[Fraction]:
    return [Fraction(1, s**mu) for s in range(1, n + 1)]


# gains, (effective, similar, incorrect), similar, incorrect, value, cutoff, p
KNOWN = [
    (inverse(3), (1, 1, 1), HALF, HALF, Fraction(1, 6), 3, [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]),
    ([Fraction(1), Fraction(9, 10)], (1, 1, 0), HALF, HALF, Fraction(27, 38), 2, [Fraction(9, 19), Fraction(10, 19)]),
    (inverse(4), (1, 2, 1), HALF, HALF, Fraction(3, 20), 4, [Fraction(1, 10), Fraction(2, 10), Fraction(3, 10), Fraction(4, 10)]),
    (inverse(5), (1, 2, 2), HALF, HALF, Fraction(1, 15), 5, [Fraction(s, 15) for s in range(1, 6)]),
    (inverse(10), (1, 5, 4), HALF, HALF, Fraction(3, 110), 10, [Fraction(s, 55) for s in range(1, 11)]),
    (inverse(10, 10), (1, 5, 4), HALF, HALF, Fraction(1, 9828683850), 9, None),
    (inverse(10), (1, 8, 1), HALF, HALF, Fraction(1, 10), 4, [Fraction(s, 10) for s in range(1, 5)] + [Fraction(0)] * 6),
    (
        inverse(4, 2),
        (1, 2, 1),
        HALF,
        HALF,
        Fraction(1, 20),
        4,
        [Fraction(1, 30), Fraction(2, 15), Fraction(3, 10), Fraction(8, 15)],
    ),
    ([Fraction(1)] * 3, (1, 1, 1), HALF, HALF, Fraction(1, 3), 3, [Fraction(1, 3)] * 3),
    (
        [Fraction(2), Fraction(2), Fraction(1), Fraction(1)],
        (1, 2, 1),
        HALF,
        HALF,
        Fraction(1, 2),
        4,
        [Fraction(1, 6), Fraction(1, 6), Fraction(1, 3), Fraction(1, 3)],
    ),
    (
        [Fraction(4), Fraction(1), Fraction(1), Fraction(1)],
        (1, 2, 1),
        HALF,
        HALF,
        Fraction(6, 13),
        4,
        [Fraction(1, 13), Fraction(4, 13), Fraction(4, 13), Fraction(4, 13)],
    ),
    (inverse(3), (3, 0, 0), HALF, HALF, Fraction(1), 1, [Fraction(1), Fraction(0), Fraction(0)]),
    (inverse(3), (0, 3, 0), HALF, HALF, HALF, 1, [Fraction(1), Fraction(0), Fraction(0)]),
    (inverse(3), (1, 0, 2), HALF, HALF, Fraction(0), 3, [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]),
    ([Fraction(1)], (1, 0, 0), HALF, HALF, Fraction(1), 1, [Fraction(1)]),
    ([Fraction(1)], (0, 1, 0), HALF, HALF, HALF, 1, [Fraction(1)]),
    ([Fraction(1)], (0, 0, 1), HALF, HALF, -HALF, 1, [Fraction(1)]),
    # A_N < 0: all mass on the smallest gain, or still 1 / g on all
    (inverse(3), (0, 0, 3), HALF, HALF, -Fraction(1, 6), 1, [Fraction(0), Fraction(0), Fraction(1)]),
    (inverse(3), (0, 1, 2), HALF, HALF, -Fraction(1, 12), 3, [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]),
    (inverse(3), (1, 1, 1), Fraction(1), HALF, Fraction(1, 4), 3, [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]),
    (inverse(3), (1, 1, 1), Fraction(0), HALF, Fraction(1, 12), 3, [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]),
]
