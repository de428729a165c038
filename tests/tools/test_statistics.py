import numpy as np
import pytest
from scipy import stats

from tools.statistics import compare, share_images, summarize


def test_a_summary_of_eleven_values():
    """0 to 10: 30 % of the way up is 3, 30 % of the way down 7."""
    values = [*np.random.default_rng(0).permutation(np.arange(11.0)), np.nan]
    for higher_is_better, robust in ((True, 3), (False, 7)):
        summary = summarize(values, higher_is_better)
        assert (summary.n, summary.mean, summary.robust30) == (11, 5, pytest.approx(robust))
        assert summary.std == pytest.approx(np.sqrt(11))


def test_summaries_of_one_value_of_none_and_of_an_infinite_one():
    one, none, endless = summarize([2.0], True), summarize([np.nan], True), summarize([1.0, np.inf], False)
    assert one[:2] == (1, 2) and np.isnan(one.std) and one.robust30 == 2
    assert none.n == 0 and np.isnan(none.mean)
    assert endless.mean == np.inf and np.isnan(endless.std)


def test_a_comparison_agrees_with_scipys_paired_t_and_signed_rank_tests():
    rng = np.random.default_rng(1)
    first, other = rng.normal(0.6, 0.1, 12), rng.normal(0.5, 0.1, 12)
    found = compare([*first, np.nan, 1], [*other, 1, np.nan])
    interval = stats.ttest_rel(first, other).confidence_interval(0.95)
    assert found.n == 12 and found.difference == pytest.approx((first - other).mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(stats.wilcoxon(first, other).pvalue)


def test_the_interval_of_two_differences_by_hand():
    """Differences 1 and 3: mean 2, standard error 1, Student's t of one degree of freedom 12.7062."""
    found = compare([2.0, 3.0], [1.0, 0.0])
    assert (found.low, found.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_six_pairs_all_better_have_the_smallest_p_of_six_signs():
    assert compare([2.0, 3, 4, 5, 6, 7], [1.0, 1, 1, 1, 1, 1]).p == pytest.approx(2 / 2**6)


@pytest.mark.parametrize("values", [([1.0], [0.5]), ([1.0, np.inf], [0.0, 0.0]), ([np.inf, 1.0], [np.inf, 0.5])])
def test_what_has_no_spread_has_no_interval(values):
    found = compare(*values)
    assert np.isnan([found.low, found.high, found.p]).all()


def test_equal_methods_have_p_one():
    assert compare([1.0, 2.0], [1.0, 2.0]) == (2, 0, 0, 0, 1)


def test_pairs_that_share_an_image_are_known():
    first, second = {"fixed": "a", "moving": "b"}, {"fixed": "c", "moving": "d"}
    assert not share_images([first, second])
    assert share_images([first, second | {"moving": "a"}])
