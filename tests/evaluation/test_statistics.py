"""Intervals and tests against SciPy, by their coverage, and in their edge cases."""

import numpy as np
import pytest

from preceptor.evaluation.statistics import (
    bootstrap,
    cohens_d,
    compare,
    group_totals,
    holm,
    interval,
    paired_test,
    rank_biserial,
    swap_p,
)


def skewed(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(6, 2, count)


def test_interval_agrees_with_scipys_bca() -> None:
    from scipy.stats import bootstrap as reference

    values = skewed(60)
    found = interval(values, resamples=20_000)
    expected = reference((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.0015)
    assert found.high == pytest.approx(expected.high, abs=0.0015)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(300):
        _, low, high = interval(skewed(40, seed), resamples=400, seed=seed)
        hits += low <= 0.75 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_groups_widen_the_interval_when_their_cases_are_alike() -> None:
    patients = np.repeat(skewed(20), 8)
    groups = np.repeat(np.arange(20), 8).tolist()
    _, low, high = interval(patients, groups)
    _, naive_low, naive_high = interval(patients)
    assert high - low > 2 * (naive_high - naive_low)


def test_groups_of_one_are_the_same_as_no_groups() -> None:
    values = skewed(15)
    assert interval(values, list("abcdefghijklmno")) == interval(values)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    values = skewed(30)
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)


def test_constant_values_have_a_point_and_one_value_no_interval() -> None:
    assert interval([0.5] * 8) == (0.5, 0.5, 0.5)
    single = interval([0.5])
    assert single.mean == 0.5
    assert np.isnan([single.low, single.high]).all()


def test_values_that_are_not_finite_are_refused_and_not_dropped() -> None:
    with pytest.raises(ValueError, match="finite"):
        interval([0.5, float("nan")])


def test_sign_flip_test_agrees_with_scipys_exact_permutation_test() -> None:
    from scipy.stats import permutation_test

    a, b = skewed(9, 1), skewed(9, 2) - 0.1
    expected = permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert paired_test(a, b)["p"] == pytest.approx(expected.pvalue)


def test_random_swaps_agree_with_all_swaps() -> None:
    from preceptor.evaluation import statistics

    a, b = skewed(14, 3), skewed(14, 4) - 0.05
    exact = paired_test(a, b)["p"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "EXACT", 0)
        assert paired_test(a, b)["p"] == pytest.approx(exact, abs=0.02)


def test_p_is_uniform_when_there_is_no_difference() -> None:
    found = [paired_test(skewed(25, s), skewed(25, s + 1000), resamples=50, swaps=300)["p"] for s in range(200)]
    assert 0.01 <= np.mean(np.asarray(found) < 0.05) <= 0.1
    assert 0.4 <= np.mean(found) <= 0.6


def test_flipping_groups_together_is_more_careful() -> None:
    shift = np.repeat(np.random.default_rng(0).normal(0.03, 0.05, 8), 10)
    groups = np.repeat(np.arange(8), 10).tolist()
    base = skewed(80)
    grouped, naive = paired_test(base + shift, base, groups), paired_test(base + shift, base)
    assert grouped["p"] > 2 * naive["p"]
    assert (grouped["n"], grouped["units"]) == (80, 8)


def test_fewer_than_six_cases_get_a_flag_and_no_p() -> None:
    five, six = paired_test(skewed(5), skewed(5) - 0.2), paired_test(skewed(6), skewed(6) - 0.2)
    assert five["few"]
    assert five["p"] is None
    assert not six["few"]
    assert six["p"] == pytest.approx(2 / 2**6)


def test_equal_arms_have_p_one_and_no_effect() -> None:
    values = skewed(20)
    found = paired_test(values, values)
    assert (found["mean"], found["low"], found["high"], found["p"], found["effect"]) == (0, 0, 0, 1, 0)


def test_pooled_totals_are_compared_by_swapping_the_arms_of_cases() -> None:
    noise = np.random.default_rng(0)
    size = noise.integers(50, 500, 30).astype(float)
    better, worse = size * 0.9, size * 0.7

    def dice(totals: np.ndarray) -> np.ndarray:
        return totals[..., :1] / totals[..., 1:]

    found = compare(np.stack([better, size], 1), np.stack([worse, size], 1), dice)[0]
    assert found["mean"] == pytest.approx(0.2)
    assert found["p"] < 0.001
    same = np.stack([better, size], 1)
    assert swap_p(same, same, dice) == 1
    [point] = bootstrap(same, dice)
    assert point.low <= 0.9 + 1e-9
    assert point.high >= 0.9 - 1e-9


def test_holm_is_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]


def test_effect_sizes_have_their_signs_and_limits() -> None:
    assert cohens_d(np.array([1.0, 3.0])) == pytest.approx(2 / np.sqrt(2))
    assert cohens_d(np.array([1.0, 1.0])) is None
    assert rank_biserial(np.array([1.0, 2.0, 3.0])) == 1
    assert rank_biserial(np.array([-1.0, -2.0, 0.0])) == -1


def test_groups_must_fit_the_cases() -> None:
    with pytest.raises(ValueError, match="3 groups for 2 cases"):
        group_totals(np.ones((2, 2)), [1, 2, 3])


def test_swaps_that_leave_nothing_to_count_never_lower_p() -> None:
    """Of each pair one arm has a value: a swap that moves all values to one arm leaves the other without any."""
    values = np.arange(1.0, 8.0)
    known = np.arange(7) % 2
    ours, theirs = np.stack([values * known, known], 1), np.stack([values * (1 - known), 1 - known], 1)

    def mean(totals: np.ndarray) -> np.ndarray:
        return np.where(totals[..., 1:] > 0, totals[..., :1] / np.maximum(totals[..., 1:], 1), np.nan)

    assert swap_p(ours, theirs, mean)[0] >= 2 / 2**7
    [found] = compare(ours, theirs, mean, resamples=100)
    assert found["low"] < found["mean"] < found["high"]
    [nothing] = compare(ours, np.zeros_like(theirs), mean, resamples=100)
    assert nothing["p"] is None
    assert np.isnan(nothing["mean"])
