"""What an interval says about the direction of a change."""

import pytest

from finetune_monitor.stats.estimate import MISSING, Estimate, direction


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
