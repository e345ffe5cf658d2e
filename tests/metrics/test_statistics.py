"""Statistics: closed forms, brute force, coverage, scipy, and independence of columns, chunks and blocks."""

import inspect
import itertools
import time
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest

from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.metrics.statistics import (
    Comparison,
    UnprovenMethod,
    bootstrap_interval,
    compare_pairs,
    comparison,
    find_unproven_methods,
    holm,
    mean_ranks,
    p_value_errors,
    paired_p_values,
    ranks,
    resampling,
)
from vitrail.metrics.statistics.multiplicity import check_directions

NAN = float("nan")
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def normals(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=shape)


def with_gaps(values: np.ndarray, share: float = 0.2, seed: int = 2) -> np.ndarray:
    gaps = np.random.Generator(np.random.PCG64(seed)).random(values.shape) < share
    return np.where(gaps, NAN, values)


def column(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)[:, None]


# The bootstrap.


def test_interval_of_two_images_in_closed_form():
    # Means of a resample: 1, 2 or 3 with probability 1/4, 1/2, 1/4.
    wide = bootstrap_interval(column(1, 3), level=0.95)
    assert (wide.mean[0], wide.low[0], wide.high[0], wide.count[0]) == (2, 1, 3, 2)
    narrow = bootstrap_interval(column(1, 3), level=0.4)
    assert (narrow.low[0], narrow.high[0]) == (2, 2)


def test_interval_of_a_share_is_binomial():
    """The resampled mean of n zeros and ones is binomial, so its quantiles are known without drawing."""
    n, ones = 30, 12
    probabilities = [1.0]
    for _ in range(n):  # The distribution of a sum of one more coin.
        probabilities = np.convolve(probabilities, [1 - ones / n, ones / n])
    low, high = np.searchsorted(np.cumsum(probabilities), [0.05, 0.95]) / n
    found = bootstrap_interval(column(*[1] * ones, *[0] * (n - ones)), resamples=50_000, level=0.9)
    np.testing.assert_allclose([found.low[0], found.high[0]], [low, high], **CLOSE)


@pytest.mark.parametrize("values", [column(0.1), column(NAN, 0.1, NAN), column(*[0.1] * 50, NAN)])
def test_intervals_of_equal_values_are_points(values):
    found = bootstrap_interval(values)
    np.testing.assert_allclose([found.mean, found.low, found.high], 0.1, rtol=1e-15)
    if found.count[0] == 1:
        assert found.low[0] == found.mean[0] == found.high[0]


def test_undefined_columns_are_nan():
    found = bootstrap_interval(np.array([[NAN, 1.0], [NAN, 2.0]]))
    assert np.isnan([found.mean[0], found.low[0], found.high[0]]).all()
    assert found.count.tolist() == [0, 2]
    nothing = bootstrap_interval(np.empty((0, 3)))
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert nothing.count.tolist() == [0, 0, 0]
    assert bootstrap_interval(np.empty((4, 0))).mean.shape == (0,)


def test_a_resample_without_defined_images_is_left_out():
    # Of 8 images 1 is defined: (7/8)^8 = 34 % of the resamples have none. Were they 0, or NaN, the interval would show it.
    found = bootstrap_interval(column(*[NAN] * 7, 5.0), resamples=200)
    assert (found.low[0], found.high[0]) == (5, 5)


def test_intervals_against_resampling_one_by_one():
    values = with_gaps(normals(40, 3))
    generator = np.random.Generator(np.random.PCG64(5))
    means = np.array([np.nanmean(values[generator.integers(40, size=40)], axis=0) for _ in range(300)])
    found = bootstrap_interval(values, resamples=300, level=0.8, seed=5)
    np.testing.assert_allclose(found.mean, np.nanmean(values, axis=0), **CLOSE)
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.1, 0.9], axis=0), **CLOSE)
    assert found.count.tolist() == (~np.isnan(values)).sum(0).tolist()


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_coverage_on_normals(level):
    """The share of 1000 intervals that contain the true mean is about `level`, with or without gaps."""
    for values in (3 + normals(60, 1000), with_gaps(3 + normals(60, 1000))):
        found = bootstrap_interval(values, resamples=1000, level=level)
        assert abs(((found.low < 3) & (found.high > 3)).mean() - level) < 0.04


def test_intervals_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.exp(normals(80, 1))
    theirs = stats.bootstrap((values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    ours = bootstrap_interval(values, resamples=20_000)
    np.testing.assert_allclose([ours.low[0], ours.high[0]], [theirs.low, theirs.high], rtol=0.02)


def test_a_large_mean_costs_no_digits():
    values = normals(30, 1)
    near, far = bootstrap_interval(values), bootstrap_interval(values + 1e9)
    np.testing.assert_allclose(far.high - far.mean, near.high - near.mean, rtol=1e-5)


# The sign-flip test.


def brute_force(differences: np.ndarray) -> float:
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return float(np.mean(np.array(flips) >= abs(sum(differences)) - 1e-9))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 12])
def test_few_images_against_brute_force(count):
    differences = normals(count, 2) + 0.7
    expected = [brute_force(pair) for pair in differences.T]
    np.testing.assert_allclose(paired_p_values(differences), expected, **CLOSE)


@pytest.mark.parametrize("count", [1, 4, 12])
def test_the_smallest_exact_p(count):
    # All of one sign: only the measured signs and their opposites are as far from 0.
    assert paired_p_values(column(*range(1, count + 1))) == 2.0 ** (1 - count)


def test_tied_sums_count_as_equally_far():
    # 0.1 + 0.2 - 0.3 is 0 and 5e-17 in different orders. Sums of signed numbers: +-0.6, and +-0.4, +-0.2, 0, 0 and so on.
    differences = column(0.1, 0.2, -0.3)
    assert paired_p_values(differences) == 1
    many = np.tile(differences, (20, 1))
    assert paired_p_values(many, resamples=50) == 1


def test_many_images_in_closed_form():
    # 15 wins, 5 losses: the sign test, which is binomial.
    coins = np.array([1.0])
    for _ in range(20):
        coins = np.convolve(coins, [0.5, 0.5])
    exact = coins[:6].sum() + coins[15:].sum()
    found = paired_p_values(column(*[1] * 15, *[-1] * 5), resamples=100_000)
    assert abs(found[0] - exact) < 4 * np.sqrt(exact / 100_000)


def test_many_images_against_flipping_one_by_one():
    differences = with_gaps(normals(35, 4) + 0.2)
    width = 4 * 2  # two words of 32 bits hold the coins of 35 images
    generator = np.random.Generator(np.random.PCG64(3))
    as_far = np.zeros(4)
    for _ in range(200):
        bits = np.unpackbits(np.frombuffer(generator.bytes(width), np.uint8))[:35].astype(float)
        flipped = np.nansum((2 * bits - 1)[:, None] * differences, axis=0)
        as_far += np.abs(flipped) >= np.abs(np.nansum(differences, axis=0))
    np.testing.assert_allclose(paired_p_values(differences, resamples=200, seed=3), (1 + as_far) / 201, **CLOSE)


def test_p_is_never_zero():
    assert paired_p_values(np.ones((500, 1)), resamples=99) == 0.01


def test_p_is_uniform_under_the_null_hypothesis():
    p_values = paired_p_values(normals(40, 1000), resamples=999)
    for level in (0.05, 0.2, 0.5):
        assert abs((p_values <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 1000)


@pytest.mark.parametrize("count", [1, 12, 13, 100])
def test_identical_methods_give_one(count):
    assert paired_p_values(np.zeros((count, 1))) == 1


def test_undefined_images_are_left_out():
    differences = normals(9, 1) + 0.5
    gaps = np.full((30, 1), NAN)
    np.testing.assert_allclose(paired_p_values(np.concatenate([gaps, differences])), paired_p_values(differences), **CLOSE)
    assert np.isnan(paired_p_values(gaps)).all()
    assert np.isnan(paired_p_values(np.empty((0, 2)))).tolist() == [True, True]


def test_the_sign_of_a_difference_does_not_matter():
    for differences in (normals(8, 3), normals(50, 3)):
        np.testing.assert_array_equal(paired_p_values(differences), paired_p_values(-differences))
        np.testing.assert_array_equal(paired_p_values(differences), paired_p_values(1e-6 * differences))


@pytest.mark.parametrize("count", [9, 60])
def test_p_values_agree_with_scipy(count):
    stats = pytest.importorskip("scipy.stats")
    differences = normals(count, 1) + 0.3
    theirs = stats.permutation_test(
        (differences[:, 0],), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=False, rng=0
    )
    tolerance = 1e-12 if count == 9 else 0.015  # scipy's are exact too where all signs can be tried
    assert abs(paired_p_values(differences, resamples=20_000)[0] - theirs.pvalue) < tolerance


# What results may not depend on.


def both(values: np.ndarray, seed: int = 0) -> np.ndarray:
    found = bootstrap_interval(values, resamples=300, seed=seed)
    return np.stack([found.mean, found.low, found.high, paired_p_values(values, resamples=300, seed=seed)])


MIXED = np.concatenate([with_gaps(normals(45, 6)), np.where(np.arange(45) < 8, 1, NAN)[:, None], np.full((45, 1), NAN)], axis=1)
"""Six columns with gaps, one with 8 images, whose test is exact, and one without any."""


def test_the_seed_decides():
    np.testing.assert_array_equal(both(MIXED), both(MIXED))
    ours, others = both(MIXED), both(MIXED, seed=1)
    assert (ours[1:, :6] != others[1:, :6]).any(1).all()
    np.testing.assert_array_equal(ours[0], others[0])
    np.testing.assert_array_equal(ours[:, 6:], others[:, 6:])


def test_numbers_are_the_same_on_all_machines():
    """Recorded numbers detect machines or libraries that draw differently."""
    ramp = np.linspace(-1, 1.2, 40)[:, None] ** 3
    found = bootstrap_interval(ramp, resamples=200)
    np.testing.assert_allclose([found.low[0], found.high[0]], [-0.05251973, 0.28765289], rtol=1e-6)
    np.testing.assert_allclose(paired_p_values(ramp, resamples=200), [30 / 201], rtol=1e-12)


def test_the_global_random_state_is_not_changed():
    before = np.random.get_state()[1].copy()
    both(MIXED)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_columns_do_not_depend_on_each_other():
    whole = both(MIXED)
    order = [3, 7, 0, 6, 5]
    np.testing.assert_allclose(both(MIXED[:, order]), whole[:, order], **CLOSE)
    for one in range(MIXED.shape[1]):
        np.testing.assert_allclose(both(MIXED[:, [one]]), whole[:, [one]], **CLOSE)


@pytest.mark.parametrize("chunk", [1, 100, 2000])
def test_chunks_make_no_difference(chunk, monkeypatch):
    whole = both(MIXED)
    monkeypatch.setattr(resampling, "CHUNK", chunk)
    np.testing.assert_allclose(both(MIXED), whole, **CLOSE)


def test_single_precision_is_computed_in_double():
    values = MIXED.astype(np.float32)
    np.testing.assert_array_equal(both(values), both(values.astype(np.float64)))
    assert both(values).dtype == np.float64


@pytest.mark.slow
def test_many_images_in_little_memory_and_time():
    values = with_gaps(normals(50_000, 40))
    for compute, resamples in ((bootstrap_interval, 100), (paired_p_values, 100)):
        tracemalloc.start()
        try:
            compute(values, resamples)
            assert tracemalloc.get_traced_memory()[1] < 200e6
        finally:
            tracemalloc.stop()
    start = time.process_time()  # Not by the clock: others may use the machine.
    bootstrap_interval(values[:20_000], resamples=500)
    paired_p_values(values[:20_000], resamples=2500)
    assert time.process_time() - start < 8  # About 0.7; a loop over resamples and columns takes far longer.


@pytest.mark.parametrize("compute", [bootstrap_interval, paired_p_values])
def test_refused_resampling(compute):
    with pytest.raises(InvalidInputError, match="at least 1 resample, got 0"):
        compute(column(1, 2), resamples=0)
    with pytest.raises(InvalidInputError, match="column 1"):
        compute(np.array([[0.0, NAN], [1.0, -np.inf]]))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, NAN])
def test_refused_levels(level):
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        bootstrap_interval(column(1, 2), level=level)
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        find_unproven_methods({"random": column(1, 2), "a": column(1, 2)}, ["m"], ["higher"], level=level)


# Holm and ranks.


def test_holm_by_hand():
    # Ascending 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; the last may not be smaller than one before.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06], **CLOSE)
    np.testing.assert_allclose(holm(np.array([0.5, 0.02, 0.6])), [1.0, 0.06, 1.0], **CLOSE)
    assert holm(np.array([0.3])).tolist() == [0.3]
    assert holm(np.empty(0)).tolist() == []


def test_holm_ignores_nan():
    np.testing.assert_allclose(holm(np.array([NAN, 0.01, NAN, 0.04])), [NAN, 0.02, NAN, 0.04], **CLOSE)
    assert np.isnan(holm(np.array([NAN, NAN]))).all()


def test_holm_agrees_with_the_step_down_procedure():
    p_values = np.random.Generator(np.random.PCG64(7)).random((50, 9)) ** 3
    for tests in p_values:
        for alpha in (0.01, 0.05, 0.3):
            rejected = set()
            for step, test in enumerate(np.argsort(tests)):
                if tests[test] > alpha / (9 - step):
                    break
                rejected.add(int(test))
            assert set(np.flatnonzero(holm(tests) <= alpha).tolist()) == rejected


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_refused_p_values(wrong):
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        holm(np.array([0.5, NAN, wrong]))


def test_ranks_by_hand():
    means = np.array([[3.0, 3.0, 1.0, NAN], [1.0, 1.0, 1.0, 2.0], [3.0, 2.0, 1.0, 5.0], [NAN, -np.inf, 1.0, 9.0]])
    found = ranks(means, ["higher", "lower", None, "higher"])
    np.testing.assert_array_equal(
        found, [[1.5, 4.0, NAN, NAN], [3.0, 2.0, NAN, 3.0], [1.5, 3.0, NAN, 2.0], [NAN, 1.0, NAN, 1.0]]
    )
    np.testing.assert_allclose(mean_ranks(found), [2.75, 8 / 3, 6.5 / 3, 1.0], **CLOSE)


def test_mean_ranks_of_nothing_are_nan():
    assert np.isnan(mean_ranks(ranks(np.ones((2, 1)), [None]))).tolist() == [True, True]
    np.testing.assert_array_equal(mean_ranks(np.array([[NAN, NAN], [1.0, 1.0]])), [NAN, 1.0])


def test_ranks_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    means = np.round(normals(12, 5))  # rounded, so that there are ties
    theirs = stats.rankdata(means, axis=0)
    np.testing.assert_array_equal(ranks(means, ["lower"] * 5), theirs)
    np.testing.assert_array_equal(ranks(means, ["higher"] * 5), 13 - theirs)


def test_refused_directions():
    with pytest.raises(InvalidInputError, match="each of 2 measures, got 1"):
        ranks(np.ones((3, 2)), ["higher"])
    with pytest.raises(InvalidInputError, match="each of 1 measures, got 2"):
        find_unproven_methods({"random": column(1, 2)}, ["m"], ["higher", None])
    with pytest.raises(UnknownNameError, match="highest"):
        inspect.unwrap(check_directions)(["higher", "highest"], 2)  # Below the types' own check, which only tests have.


# More images than can be resampled.


def test_normal_intervals_are_those_of_the_bootstrap(monkeypatch):
    values = np.random.default_rng(0).gamma(2.0, size=(3000, 3))
    values[:500, 1], values[:, 2] = NAN, 4.0
    resampled = bootstrap_interval(values, resamples=20_000, level=0.9)
    monkeypatch.setattr(resampling, "MAX_RESAMPLED", 2999)
    normal = bootstrap_interval(values, level=0.9)
    np.testing.assert_array_equal(normal.count, [3000, 2500, 3000])
    np.testing.assert_array_equal(normal.mean, resampled.mean)
    width = resampled.high - resampled.low
    np.testing.assert_allclose(normal.low, resampled.low, atol=0.03 * width.max())
    np.testing.assert_allclose(normal.high, resampled.high, atol=0.03 * width.max())
    assert normal.low[2] == normal.high[2] == 4
    expected = NormalDist(values[:, 0].mean(), values[:, 0].std() / 3000**0.5)
    np.testing.assert_allclose([normal.low[0], normal.high[0]], [expected.inv_cdf(0.05), expected.inv_cdf(0.95)], rtol=1e-9)


def test_normal_p_values_are_within_their_error(monkeypatch):
    """Of 14 images, all 16,384 sign choices can be counted."""
    generator = np.random.default_rng(1)
    differences = generator.normal([[0.0, 0.4, 1.0]], 1.0, (14, 3))
    monkeypatch.setattr(resampling, "EXACT_IMAGES", 14)
    exact = paired_p_values(differences)
    np.testing.assert_array_equal(p_value_errors(differences, exact), 0)
    monkeypatch.setattr(resampling, "EXACT_IMAGES", 12)
    drawn = paired_p_values(differences, resamples=2000)
    errors = p_value_errors(differences, drawn, 2000)
    assert (np.abs(drawn - exact) < 5 * errors + 1e-3).all()
    monkeypatch.setattr(resampling, "MAX_RESAMPLED", 13)
    normal = paired_p_values(differences)
    bounds = p_value_errors(differences, normal)
    assert (np.abs(normal - exact) <= bounds).all()
    assert (np.abs(normal - exact) < 0.03).all()
    assert (bounds < 1).all()


def test_normal_p_values_of_very_many_images():
    generator = np.random.default_rng(2)
    differences = generator.normal([0, 0.01, 0.05], 1, (30_000, 3))
    differences[:, 0] -= differences[:, 0].mean()
    differences[:100, 2] = NAN
    p_values = paired_p_values(differences)
    errors = p_value_errors(differences, p_values)
    statistic = np.nansum(differences, 0) / np.sqrt(np.nansum(differences**2, 0))
    np.testing.assert_allclose(p_values, [2 * NormalDist().cdf(-abs(z)) for z in statistic], rtol=1e-6, atol=1e-14)
    assert p_values[0] == pytest.approx(1)
    assert p_values[2] < 1e-10
    assert (errors < 0.02).all()
    assert paired_p_values(np.zeros((30_000, 1)))[0] == 1


# Comparisons.


def table(images: int = 40) -> dict[str, np.ndarray]:
    """Three methods and a control on three measures. `good` is better on the first two, `same` is the control itself."""
    noise = normals(4, images, 3, seed=3)
    good = noise[0] * 0.3 + np.array([1.0, -1.0, 1.0])
    return {"good": good, "random": noise[1] * 0.3, "bad": noise[2] * 0.3 - np.array([1.0, -1.0, 0.0]), "same": noise[1] * 0.3}


MEASURES = ["insertion", "deletion", "size"]
BETTER = ["higher", "lower", None]


def assert_same(found: Comparison, expected: Comparison) -> None:
    names, numbers = zip(*(([*vars(each).values()][:3], [*vars(each).values()][3:]) for each in (found, expected)), strict=True)
    assert names[0] == names[1]
    np.testing.assert_allclose(*numbers, **CLOSE)


def test_every_pair_of_every_measure():
    found = compare_pairs(table(), MEASURES)
    pairs = list(itertools.combinations(["good", "random", "bad", "same"], 2))
    assert [(each.measure, each.first, each.second) for each in found] == [(m, *pair) for m in MEASURES for pair in pairs]


@pytest.mark.parametrize("images", [10, 40])
def test_comparisons_are_those_of_the_parts(images):
    values = table(images)
    values["bad"] = with_gaps(values["bad"])
    values["good"] = with_gaps(values["good"], seed=9)
    options = {"level": 0.8, "bootstrap_resamples": 100, "permutation_resamples": 200, "seed": 4}
    found = compare_pairs(values, MEASURES, **options)
    for number, measure in enumerate(MEASURES):
        some = [each for each in found if each.measure == measure]
        np.testing.assert_allclose([each.p_adjusted for each in some], holm(np.array([each.p for each in some])), **CLOSE)
        for each in some:
            differences = (values[each.first] - values[each.second])[:, [number]]
            interval = bootstrap_interval(differences, 100, 0.8, seed=4)
            expected = Comparison(
                measure,
                each.first,
                each.second,
                *(float(end[0]) for end in (interval.mean, interval.low, interval.high)),
                float(paired_p_values(differences, 200, seed=4)[0]),
                float(p_value_errors(differences, paired_p_values(differences, 200, seed=4), 200)[0]),
                each.p_adjusted,
                int((~np.isnan(differences)).sum()),
            )
            assert_same(each, expected)


def test_comparisons_find_what_differs():
    found = {(each.measure, each.first, each.second): each for each in compare_pairs(table(), MEASURES)}
    clear = found["insertion", "good", "random"]
    assert 0.8 < clear.low < clear.difference < clear.high < 1.2
    assert clear.p < clear.p_adjusted < 0.05
    none = found["deletion", "random", "same"]
    assert (none.difference, none.low, none.high, none.p, none.p_adjusted, none.count) == (0, 0, 0, 1, 1, 40)


def test_methods_without_common_images():
    values = {"a": column(1, 2, NAN, NAN), "b": column(NAN, NAN, 3, 4), "c": column(1, 2, 3, 4)}
    first, *others = compare_pairs(values, ["m"])
    assert np.isnan([first.difference, first.low, first.high, first.p, first.p_adjusted]).all()
    assert first.count == 0
    assert [each.p_adjusted for each in others] == [1, 1]
    [lonely, equal] = find_unproven_methods(values, ["m"], ["higher"], control="b")
    assert (lonely.method, equal.method, equal.difference) == ("a", "c", 0)
    assert np.isnan([lonely.difference, lonely.p_adjusted]).all()


@pytest.mark.parametrize("chunk", [1, 100])
def test_blocks_make_no_difference(chunk, monkeypatch):
    whole, unproven = compare_pairs(table(), MEASURES), find_unproven_methods(table(), MEASURES, BETTER)
    monkeypatch.setattr(comparison, "CHUNK", chunk)
    for each, expected in zip(compare_pairs(table(), MEASURES), whole, strict=True):
        assert_same(each, expected)
    assert [each.method for each in find_unproven_methods(table(), MEASURES, BETTER)] == [each.method for each in unproven]


def test_nothing_to_compare():
    assert compare_pairs({}, []) == []
    assert compare_pairs({"a": column(1, 2)}, ["m"]) == []
    assert compare_pairs({"a": np.empty((2, 0)), "b": np.empty((2, 0))}, []) == []
    assert find_unproven_methods({"random": column(1, 2)}, ["m"], ["higher"]) == []
    assert find_unproven_methods({"random": column(1, 2), "a": column(5, 6)}, ["m"], [None]) == []


def test_unproven_methods():
    found = find_unproven_methods(table(), MEASURES, BETTER)
    # `bad` differs significantly, in the wrong direction; `same` does not differ; `size` has no direction.
    assert [(each.method, each.measure) for each in found] == [
        ("bad", "insertion"),
        ("same", "insertion"),
        ("bad", "deletion"),
        ("same", "deletion"),
    ]
    assert found[0].p_adjusted < 0.05
    assert found[0].difference < -0.8
    assert found[1] == UnprovenMethod("same", "insertion", 0.0, 1.0)
    worst = find_unproven_methods(table(), MEASURES, BETTER, control="bad")
    assert worst == []


def test_significance_needs_corrected_p_values():
    # All of one sign over 6 images: p = 1/32. Two such methods: 1/16, no longer below 0.05.
    ones, zeros = np.arange(1.0, 7.0)[:, None], np.zeros((6, 1))
    assert find_unproven_methods({"random": zeros, "a": ones}, ["m"], ["higher"]) == []
    expected = [UnprovenMethod("a", "m", 3.5, 1 / 16), UnprovenMethod("b", "m", 7.0, 1 / 16)]
    assert find_unproven_methods({"a": ones, "b": 2 * ones, "random": zeros}, ["m"], ["higher"]) == expected
    assert find_unproven_methods({"a": ones, "b": 2 * ones, "random": zeros}, ["m"], ["higher"], level=0.07) == []
    # As good as the level is not below it.
    assert len(find_unproven_methods({"random": zeros, "a": ones}, ["m"], ["higher"], level=1 / 32)) == 1


def test_refused_comparisons():
    with pytest.raises(InvalidInputError, match="a: 2 x 1, b: 3 x 1"):
        compare_pairs({"a": column(1, 2), "b": column(1, 2, 3)}, ["m"])
    with pytest.raises(InvalidInputError, match="and 2 measures"):
        compare_pairs({"a": column(1, 2), "b": column(1, 2)}, ["m", "n"])
    with pytest.raises(InvalidInputError, match="finite"):
        compare_pairs({"a": column(1, np.inf), "b": column(1, np.inf)}, ["m"])  # their difference would be NaN: left out
    with pytest.raises(UnknownNameError, match="random"):
        find_unproven_methods({"a": column(1, 2)}, ["m"], ["higher"])


def test_too_few_resamples_for_significance():
    values = {"random": np.zeros((30, 1))} | {str(i): np.ones((30, 1)) for i in range(5)}
    with pytest.raises(InvalidInputError, match="at least 100") as refused:
        find_unproven_methods(values, ["m"], ["higher"], resamples=99)
    enough = int(str(refused.value).split("at least ")[1])
    assert find_unproven_methods(values, ["m"], ["higher"], resamples=enough) == []
