"""What an interval says about the direction of a change."""

import pytest

from finetune_monitor.stats.estimate import MISSING, Estimate, direction, shown


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.1, 0.3, 1),
        (-0.3, -0.1, -1),
        (-0.1, 0.3, 0),
        (0.0, 0.0, 0),
        (1e-17, 1e-16, 0),  # the rounding error of a sum
        (MISSING, MISSING, None),
    ],
)
def test_a_change_has_a_direction_only_if_its_interval_excludes_zero(low, high, found):
    assert direction(Estimate((low + high) / 2, low, high, 8, 0)) == found


@pytest.mark.parametrize(
    ("numbers", "form", "found"),
    [
        ((0.52, 0.48, 0.56), ".3f", "0.520 [0.480, 0.560]"),
        ((0.0, -0.014, 0.013), ".3f", "0.000 [-0.014, 0.013]"),
        ((0.0004, -0.002, 0.003), ".3f", "0.000 [-0.002, 0.003]"),
        ((0.0004, 0.0001, 0.0007), ".3f", "0.00040 [0.00010, 0.00070]"),
        ((0.0, -0.001, 0.001), ".3f", "0.000 [-0.001, 0.001]"),
        ((0.0007, 0.0004, 0.00099), ".3f", "0.00070 [0.00040, 0.00099]"),
        ((-3e-6, -8e-6, 2e-6), "+.3f", "-0.0000030 [-0.0000080, +0.0000020]"),
        ((0.004, 0.001, 0.007), ".2f", "0.0040 [0.0010, 0.0070]"),
        ((0.0004, MISSING, MISSING), ".3f", "0.00040"),
        ((0.0013, 0.0004, 0.0022), ".3f", "0.0013 [0.0004, 0.0022]"),
        ((-0.1, -0.2, -0.00049), ".3f", "-0.1000 [-0.2000, -0.0005]"),
        ((0.1, 0.0, 0.2), ".3f", "0.100 [0.000, 0.200]"),
        ((0.1, -0.0004, 0.2), ".3f", "0.100 [0.000, 0.200]"),
        ((0.0, 0.0, 0.0), ".3f", "0.000 [0.000, 0.000]"),
        ((1e-12, -1e-12, 1e-12), ".3f", "0.000 [0.000, 0.000]"),
        ((MISSING, MISSING, MISSING), ".3f", "—"),
        ((0.001, 0.0, 0.002), ".0%", "0% [0%, 0%]"),
    ],
)
def test_no_change_on_a_small_scale_and_no_significant_end_is_shown_as_zeros(numbers, form, found):
    assert shown(Estimate(*numbers, 8, 0), form) == found
