"""Games whose solution is known exactly, and slow exact solvers, all in Fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

from hypothesis import strategies as st

HALF = Fraction(1, 2)


def inverse(n: int, mu: int = 1) -> list[Fraction]:
    return [Fraction(1, s**mu) for s in range(1, n + 1)]


# gains, (effective, similar, incorrect), similar, incorrect, value, cutoff, p
KNOWN = [
    (inverse(3), (1, 1, 1), HALF, HALF, Fraction(1, 6), 3, [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]),
    (
        [Fraction(1), Fraction(9, 10)],
        (1, 1, 0),
        HALF,
        HALF,
        Fraction(27, 38),
        2,
        [Fraction(9, 19), Fraction(10, 19)],
    ),
    (
        inverse(4),
        (1, 2, 1),
        HALF,
        HALF,
        Fraction(3, 20),
        4,
        [Fraction(1, 10), Fraction(2, 10), Fraction(3, 10), Fraction(4, 10)],
    ),
    (inverse(5), (1, 2, 2), HALF, HALF, Fraction(1, 15), 5, [Fraction(s, 15) for s in range(1, 6)]),
    (inverse(10), (1, 5, 4), HALF, HALF, Fraction(3, 110), 10, [Fraction(s, 55) for s in range(1, 11)]),
    (inverse(10, 10), (1, 5, 4), HALF, HALF, Fraction(1, 9828683850), 9, None),
    (
        inverse(10),
        (1, 8, 1),
        HALF,
        HALF,
        Fraction(1, 10),
        4,
        [Fraction(s, 10) for s in range(1, 5)] + [Fraction(0)] * 6,
    ),
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
    (
        inverse(3),
        (0, 1, 2),
        HALF,
        HALF,
        -Fraction(1, 12),
        3,
        [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)],
    ),
    (
        inverse(3),
        (1, 1, 1),
        Fraction(1),
        HALF,
        Fraction(1, 4),
        3,
        [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)],
    ),
    (
        inverse(3),
        (1, 1, 1),
        Fraction(0),
        HALF,
        Fraction(1, 12),
        3,
        [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)],
    ),
]

# (effective, similar, incorrect) gains, counts, value, p: gains of any shape
KNOWN_GENERAL = [
    (
        ([3, 2, 1], [Fraction(3, 4), 1, Fraction(1, 4)], [Fraction(3, 4), 1, Fraction(1, 4)]),
        (1, 1, 1),
        Fraction(10, 21),
        [Fraction(4, 21), Fraction(5, 21), Fraction(12, 21)],
    ),
    (
        ([3, 2, 1], [Fraction(3, 2), HALF, Fraction(1, 4)], [Fraction(3, 2), HALF, Fraction(1, 4)]),
        (2, 1, 0),
        Fraction(7, 4),
        [HALF, HALF, Fraction(0)],
    ),
]

# gains, counts, p of the paper's Definition 1 and its worst case, k* as printed and its worst case (a = b =
# 1/2)
KNOWN_PAPER = [
    (inverse(3), (1, 1, 1), [Fraction(1, 5), Fraction(2, 5), Fraction(2, 5)], Fraction(2, 15), 1, -HALF),
    (
        [Fraction(1), Fraction(9, 10)],
        (1, 1, 0),
        [Fraction(27, 47), Fraction(20, 47)],
        Fraction(63, 94),
        1,
        HALF,
    ),
    (
        inverse(4),
        (1, 2, 1),
        [Fraction(3, 26), Fraction(6, 26), Fraction(9, 26), Fraction(8, 26)],
        Fraction(7, 52),
        1,
        -HALF,
    ),
    (
        inverse(5),
        (1, 2, 2),
        [Fraction(3, 40), Fraction(3, 20), Fraction(9, 40), Fraction(3, 10), Fraction(1, 4)],
        Fraction(1, 20),
        5,
        Fraction(1, 20),
    ),
    (inverse(10), (1, 5, 4), None, Fraction(7, 310), 10, Fraction(7, 310)),
    (inverse(10, 10), (1, 5, 4), None, Fraction(1, 9828683850), 10, Fraction(7, 69486051550)),
    (inverse(10), (1, 8, 1), None, Fraction(1, 10), 1, -HALF),
]

SHARES = [
    (HALF, HALF),
    (Fraction(1, 4), HALF),
    (HALF, Fraction(1)),
    (Fraction(0), Fraction(1)),
    (Fraction(7, 8), Fraction(1, 8)),
]
SHARES += [(HALF, Fraction(2)), (Fraction(1), HALF), (HALF, Fraction(0)), (Fraction(1, 3), Fraction(1, 5))]


def marks(counts, a, b):
    """a_1, ..., a_N: what the adversary makes of the largest p_s g_s, the second largest, ..."""
    n_effective, n_similar, n_incorrect = counts
    return [-b] * n_incorrect + [a] * n_similar + [Fraction(1)] * n_effective


def quotients(gain, counts, a, b):
    """A_k / C_k for k = 1..N, gains sorted descending."""
    ordered = sorted(gain, reverse=True)
    return [
        up / down
        for up, down in zip(accumulate(marks(counts, a, b)), accumulate(1 / g for g in ordered), strict=True)
    ]


def exact_value(gain, counts, a, b):
    """The value of the game by the formula in ``max_min``."""
    best = max(quotients(gain, counts, a, b))
    return best if best >= 0 else max(best, -b * min(gain))


def exact_worst_case(p, gain, counts, a, b):
    """The smallest expected gain of p by sorting."""
    weights = sorted((x * g for x, g in zip(p, gain, strict=True)), reverse=True)
    return sum(mark * w for mark, w in zip(marks(counts, a, b), weights, strict=True))


def counts_of(n):
    """Any three counts that sum to n."""
    return st.tuples(st.integers(0, n), st.integers(0, n)).map(
        lambda c: (min(c), max(c) - min(c), n - max(c))
    )


@st.composite
def games(draw, max_size=12, shares=SHARES):
    """(gains as Fractions in any order, counts, a, b), ties and steep gains among them."""
    n = draw(st.integers(1, max_size))
    kind = draw(st.sampled_from(["rank", "any", "ties"]))
    if kind == "rank":
        gain = draw(st.permutations(inverse(n, draw(st.sampled_from([1, 2, 10])))))
    elif kind == "ties":
        gain = draw(
            st.lists(
                st.sampled_from([Fraction(4), Fraction(2), Fraction(1), Fraction(1, 2)]),
                min_size=n,
                max_size=n,
            )
        )
    else:
        gain = draw(st.lists(st.fractions(Fraction(1, 50), 3, max_denominator=50), min_size=n, max_size=n))
    return list(gain), draw(counts_of(n)), *draw(st.sampled_from(shares))
