"""Intervals, paired tests and effect sizes over cases, or over groups of cases (patients) where these are known.

One idea serves every metric. Each unit (a case, or a group) contributes a row of totals, and a metric is a function of
the sum of rows: a mean is (sum of values) / (number of values), a pooled Dice is a ratio of summed pixel counts.
Resampling units with replacement gives its interval (BCa: Efron 1987; clusters: Davison and Hinkley 1997, section
3.8); swapping the arms of units gives a test that assumes no distribution (sign flips: Good 2005). All draws come from
`seed` alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""From summed totals [..., K] to M metrics [..., M]."""

FEWEST = 6
"""With fewer units no p-value is given: the smallest that five pairs can reach is 2 / 2^5 = 0.06."""
EXACT = 14
"""Up to this many units every one of the 2^n swaps is tried."""
BLOCK = 4_000_000


class Interval(NamedTuple):
    """A metric and its interval; low and high are NaN where one unit alone cannot tell."""

    mean: float
    low: float
    high: float


def interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[Any] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of `values` [N] with its BCa bootstrap interval over cases, or over groups [N] where given.

    Raises ValueError for values that are not finite: a missed structure has a score, it is not dropped.
    """
    return bootstrap(mean_totals(values, groups), ratio, resamples, confidence, seed)[0]


def paired_test(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    groups: Sequence[Any] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    swaps: int = 10_000,
) -> dict[str, Any]:
    """Mean of a - b with its interval, and the two-sided p of a paired sign-flip permutation test.

    a, b: one value a case in the same order. groups: cases of one group flip together.
    Returns mean, low, high, p (None for fewer than six units), effect (paired Cohen's d: mean over standard deviation
    of the differences; None where these do not vary), rank_biserial, n cases, units, few.
    """
    ours, theirs = mean_totals(a, groups), mean_totals(b, groups)
    result = compare(ours, theirs, ratio, resamples, confidence, seed, swaps)[0]
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return {**result, "effect": cohens_d(difference), "rank_biserial": rank_biserial(difference), "n": len(difference)}


def compare(
    a: np.ndarray,
    b: np.ndarray,
    statistic: Statistic,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    swaps: int = 10_000,
) -> list[dict[str, Any]]:
    """statistic(a) - statistic(b) with interval and p, from paired totals [units, K]; one entry a metric.

    A statistic may be NaN where nothing counts: then there is no p (None).
    """
    columns = a.shape[1]
    both = np.concatenate([a, b], axis=1)

    def difference(totals: np.ndarray) -> np.ndarray:
        return statistic(totals[..., :columns]) - statistic(totals[..., columns:])

    few = len(a) < FEWEST
    found = bootstrap(both, difference, resamples, confidence, seed)
    tested = [] if few else swap_p(a, b, statistic, swaps, seed).tolist()
    values = [None if p != p else p for p in tested] or [None] * len(found)
    return [{**gain._asdict(), "p": p, "units": len(a), "few": few} for gain, p in zip(found, values, strict=True)]


def mean_totals(values: Sequence[float] | np.ndarray, groups: Sequence[Any] | None = None) -> np.ndarray:
    """Totals (sum of values, number of values) of each unit, [units, 2]; the metric is their `ratio`."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("values are a non-empty list of finite numbers, one a case")
    return group_totals(np.stack([values, np.ones_like(values)], axis=1), groups)


def group_totals(totals: np.ndarray, groups: Sequence[Any] | None) -> np.ndarray:
    """Rows [cases, K] summed by group, in the order in which groups first appear; unchanged without groups."""
    if groups is None:
        return totals
    if len(groups) != len(totals):
        raise ValueError(f"{len(groups)} groups for {len(totals)} cases")
    order: dict[Any, int] = {}
    index = [order.setdefault(group, len(order)) for group in groups]
    summed = np.zeros((len(order), totals.shape[1]))
    np.add.at(summed, index, totals)
    return summed


def ratio(totals: np.ndarray) -> np.ndarray:
    """Means from totals (sums ..., number)."""
    return totals[..., :-1] / totals[..., -1:]


def bootstrap(
    totals: np.ndarray, statistic: Statistic, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> list[Interval]:
    """The metrics of all units, each with its BCa interval; all metrics share the same draws of units."""
    total = totals.sum(axis=0)
    centres = statistic(total)
    if len(totals) < 2:
        return [Interval(float(centre), float("nan"), float("nan")) for centre in centres]
    draws = statistic(resampled(totals, resamples, seed))
    left_out = statistic(total - totals)
    return [_bca(float(centres[m]), draws[:, m], left_out[:, m], confidence) for m in range(len(centres))]


def _bca(centre: float, draws: np.ndarray, left_out: np.ndarray, confidence: float) -> Interval:
    """Bias-corrected and accelerated bounds; plain percentiles where the correction is not finite.

    Draws in which nothing counts (NaN) are set aside.
    """
    from scipy.special import ndtr, ndtri

    draws, left_out = draws[np.isfinite(draws)], left_out[np.isfinite(left_out)]
    if not (np.isfinite(centre) and len(draws) and len(left_out)):
        return Interval(centre, float("nan"), float("nan"))
    if np.ptp(draws) <= 1e-12 * max(1.0, abs(centre)):
        return Interval(centre, centre, centre)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    bias = ndtri(((draws < centre).mean() + (draws <= centre).mean()) / 2)
    skew = left_out.mean() - left_out
    spread = (skew**2).sum()
    acceleration = (skew**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    moved = bias + ndtri(tails)
    levels = ndtr(bias + moved / (1 - acceleration * moved))
    low, high = np.quantile(draws, levels if np.isfinite(levels).all() else tails)
    return Interval(centre, float(low), float(high))


def resampled(totals: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of units [units, K] drawn with replacement: [resamples, K]; the same draws for equally many units."""
    noise, count = np.random.default_rng(seed), len(totals)
    step = max(1, BLOCK // count)
    blocks = []
    for start in range(0, resamples, step):
        chosen = noise.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - start))
        blocks.append(chosen @ totals)
    return np.concatenate(blocks)


def swap_p(a: np.ndarray, b: np.ndarray, statistic: Statistic, swaps: int = 10_000, seed: int = 0) -> np.ndarray:
    """Two-sided p of no difference, [M]: how often swapping the arms of units gives at least as large a difference.

    a, b: totals [units, K]. All 2^units swaps up to 14 units; otherwise `swaps` random ones, the observed included.
    Swaps that leave nothing to count (NaN) are taken as at least as large; NaN where that holds for the observed.
    """
    count, change = len(a), b - a
    from_a, from_b = a.sum(axis=0), b.sum(axis=0)

    def sizes(swapped: np.ndarray) -> np.ndarray:
        moved = swapped @ change
        return np.abs(statistic(from_a + moved) - statistic(from_b - moved))

    observed = sizes(np.zeros((1, count)))[0]
    bound = observed * (1 - 1e-9) - 1e-14  # so that rounding does not hide ties
    if count <= EXACT:
        every = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return np.where(np.isnan(observed), np.nan, (~(sizes(every) < bound)).mean(axis=0))
    noise, hits, step = np.random.default_rng(seed), np.zeros(len(bound)), max(1, BLOCK // count)
    for start in range(0, swaps, step):
        chosen = noise.integers(0, 2, size=(min(step, swaps - start), count))
        hits += (~(sizes(chosen) < bound)).sum(axis=0)
    return np.where(np.isnan(observed), np.nan, (hits + 1) / (swaps + 1))


def cohens_d(difference: np.ndarray) -> float | None:
    """Paired effect size d_z: mean over standard deviation of the differences; None where they do not vary."""
    if len(difference) < 2:
        return None
    spread = difference.std(ddof=1)
    if spread <= 1e-12 * max(1.0, float(np.abs(difference).max())):
        return 0.0 if not difference.any() else None
    return float(difference.mean() / spread)


def rank_biserial(difference: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014), -1..1: favourable minus unfavourable share of rank sums."""
    from scipy.stats import rankdata

    moved = difference[difference != 0]
    if len(moved) == 0:
        return 0.0
    ranks = rankdata(np.abs(moved))
    return float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values (Holm 1979), in the given order; None stays None and is not counted."""
    known = sorted((value, index) for index, value in enumerate(values) if value is not None)
    result: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, index) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        result[index] = highest
    return result
