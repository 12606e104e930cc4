"""Shapes in signatures are checked while the tests run."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from finetune_monitor.base.files import fsync
from finetune_monitor.stats.intervals import t_interval
from support.shapes import FIRST


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(TypeCheckError, match="values"):
        t_interval(np.zeros((2, 3)))


@pytest.mark.parametrize("test", ["first", "second"])
def test_the_first_calls_of_a_test_are_checked(test):
    for _ in range(FIRST - 1):
        t_interval(np.zeros(2))
    with pytest.raises(TypeCheckError, match="values"):
        t_interval(np.zeros((2, 3)))


def test_a_function_without_arrays_is_left_alone():
    assert hasattr(t_interval, "__wrapped__")
    assert not hasattr(fsync, "__wrapped__")
