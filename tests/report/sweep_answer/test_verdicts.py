import math

import numpy as np
import pytest

from finetune_monitor.report.sweep_answer.verdicts import along_axis, best_of, shown_change, too_few
from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.stats.intervals import t_interval

NAN = math.nan


def changes(half, **known):
    """Intervals by the places of two settings, such as `c01=0.05`; a tuple gives its own half width."""

    def change(first, last):
        found = known[f"c{first}{last}"]
        mean, own = found if isinstance(found, tuple) else (found, half)
        return Estimate(mean, mean - own, mean + own, 3, 0)

    return change


TABLE = [
    ((1, 2), changes(0.03, c01=0.04), "from 1 to 2 photos it rises by 0.04 [0.01, 0.07]", "rise", 1),
    ((1, 2), changes(0.03, c01=-0.04), "from 1 to 2 photos it falls by 0.04 [0.01, 0.07]", "fall", 1),
    (
        (1, 2),
        changes(0.03, c01=0.02),
        "from 1 to 2 photos there is no significant change (0.02 [-0.01, 0.05])",
        "none",
        1,
    ),
    (
        (1, 2, 5, 10, 20),
        changes(0.02, c01=0.08, c12=0.03, c23=0.0, c34=0.01, c24=0.01),
        "from 1 to 2 photos it rises by 0.08 [0.06, 0.10]; from 2 to 5 by 0.03 [0.01, 0.05]; "
        "beyond 5 there is no significant change (0.01 [-0.01, 0.03] from 5 to 20)",
        "rise",
        5,
    ),
    (
        (1, 2, 5),
        changes(0.03, c01=0.02, c12=0.02, c02=0.04),
        "from 1 to 5 photos it rises by 0.04 [0.01, 0.07], though no single change in between is significant",
        "rise",
        3,
    ),
    (
        (1, 2, 5),
        changes(0.03, c01=0.06, c12=-0.05, c02=0.01),
        "from 1 to 2 photos it rises by 0.06 [0.03, 0.09]; from 2 to 5 it falls by 0.05 [0.02, 0.08]",
        "none",
        3,
    ),
    (
        (1, 2, 5),
        changes(0.03, c01=0.01, c12=0.05),
        "from 1 to 2 photos there is no significant change (0.01 [-0.02, 0.04]); "
        "from 2 to 5 it rises by 0.05 [0.02, 0.08]",
        "rise",
        2,
    ),
    (
        (1, 2),
        changes(NAN, c01=0.04),
        "from 1 to 2 photos it is 0.040 higher, but has no interval and may be chance",
        "unknown",
        0,
    ),
    ((1, 2), changes(NAN, c01=NAN), "from 1 to 2 photos there is nothing in common to compare", "unknown", 0),
]


@pytest.mark.parametrize(("values", "change", "text", "tone", "intervals"), TABLE)
def test_sentences_along_an_axis(values, change, text, tone, intervals):
    found = along_axis(values, change, "photos")
    assert (found.text, found.tone, found.intervals) == (text, tone, intervals)


def test_sums_that_differ_by_rounding_are_no_change():
    assert along_axis([1, 2], changes(0.0, c01=1e-16)).tone == "none"


CATEGORIES = [
    ((0.5, 0.6), True, changes(0.03, c01=0.1), "b is best (0.600); its lead over a, 0.10 [0.07, 0.13], is significant"),
    (
        (0.5, 0.6),
        True,
        changes(0.3, c01=0.1),
        "b is best (0.600); its lead over a, 0.10 [-0.20, 0.40], is not significant",
    ),
    (
        (0.5, 0.6),
        False,
        changes(0.03, c10=-0.1),
        "a is best (0.500); its lead over b, 0.10 [0.07, 0.13], is significant",
    ),
    (
        (0.5, 0.6, 0.59),
        True,
        changes(0.03, c01=0.1, c21=0.01),
        "b is best (0.600); its lead over c, 0.01 [-0.02, 0.04], is not significant; "
        "1 of 2 others are not significantly worse",
    ),
    (
        (0.5, 0.6, 0.4),
        None,  # neither direction is better
        changes(0.03, c01=0.1, c21=0.02),
        "b is highest (0.600); its lead over a, 0.10 [0.07, 0.13], is significant; "
        "1 of 2 others are not significantly lower",
    ),
    (
        (0.5, 0.6),  # over all trials, of which those of a and b differ
        True,
        changes(0.03, c01=-0.1),
        "b is best (0.600); its lead over a, -0.10 [-0.13, -0.07], is significantly below 0: "
        "where both have scores, a is better",
    ),
]


FEW = [
    (["3 photos"], False, "there is a score only for 3 photos so far"),
    (["3 photos"], True, "there is a score only for 3 photos"),
    ([], False, "nothing to report yet"),
    ([], True, "nothing was measured"),
]


@pytest.mark.parametrize(("names", "has_ended", "text"), FEW)
def test_sentences_about_too_few_settings(names, has_ended, text):
    found = too_few(names, has_ended)
    assert (found.text, found.tone, found.intervals) == (text, "unknown", 0)


@pytest.mark.parametrize(("levels", "higher", "change", "text"), CATEGORIES)
def test_sentences_over_categories(levels, higher, change, text):
    found = best_of("abc"[: len(levels)], levels, change, higher)
    tone = (
        "none"
        if higher is None
        or any(words in text for words in ("is not significant;", "below 0", "chance"))
        or text.endswith("is not significant")
        else "rise"
    )
    assert (found.text, found.tone) == (text, tone)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ((0.04, 0.01, 0.07), "0.04 [0.01, 0.07]"),
        ((0.04, 0.004, 0.076), "0.040 [0.004, 0.076]"),
        ((0.0012, 0.0008, 0.0016), "0.0012 [0.0008, 0.0016]"),
        ((0.0, -0.001, 0.001), "0.000 [-0.001, 0.001]"),
        ((0.3, NAN, NAN), "0.300"),
    ],
)
def test_a_bound_that_is_not_zero_is_not_shown_as_zero(change, text):
    assert shown_change(Estimate(*change, 3, 0)) == text


@pytest.mark.parametrize("units", [2, 3, 5, 8])
def test_paired_intervals_cover_the_truth_in_95_of_100(units):
    """Units lie 0.2 apart, the difference is 0.04 ± 0.07 within a unit; 2,000 sweeps."""
    random = np.random.default_rng(units)
    rounds = 2000
    whose = random.normal(0, 0.2, (rounds, units))
    one, other = (whose + random.normal(shift, 0.05, (rounds, units)) for shift in (0.3, 0.34))
    found = [t_interval(row) for row in other - one]
    covered = np.mean([each.low <= 0.04 <= each.high for each in found])
    assert 0.935 < covered < 0.965


def test_a_change_that_is_not_there_is_told_as_a_rise_one_time_in_40():
    random = np.random.default_rng(0)
    found = [along_axis([1, 2], lambda a, b: t_interval(random.normal(0, 0.05, 5))) for _ in range(2000)]
    assert 0.015 < np.mean([each.tone == "rise" for each in found]) < 0.035


@pytest.mark.parametrize(("values", "mean", "n"), [([], NAN, 0), ([0.4], 0.4, 1), ([0.4, NAN], 0.4, 1)])
def test_one_unit_has_no_interval(values, mean, n):
    found = t_interval(np.array(values))
    assert (found.mean, found.n) == (pytest.approx(mean, nan_ok=True), n)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
