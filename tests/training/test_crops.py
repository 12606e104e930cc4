"""Crops: the center square where it shows the head large enough, else a square around it."""

import pytest

from finetune_monitor.training.crops import ENOUGH_PIXELS, WANTED_SHARE, center_square, face_square, relative_box


def around(x: float, y: float, height: float) -> tuple[float, float, float, float]:
    """A face of this height with its middle at a place."""
    return x - 0.4 * height, y - height / 2, x + 0.4 * height, y + height / 2


@pytest.mark.parametrize("size", [(100, 100), (101, 100), (300, 100), (100, 301)])
def test_a_large_face_in_the_center_square_changes_nothing(size):
    left, top, side = center_square(size)
    assert face_square(size, around(left + side / 2, top + side / 2, 0.5 * side), 512) == (left, top, side)


def test_a_photo_that_is_a_face_is_used_whole():
    assert face_square((128, 128), (-10, -10, 130, 140), 64) == (0, 0, 128)


def test_a_head_that_the_center_would_cut_off_moves_the_square():
    left, top, side = face_square((100, 200), around(50, 40, 60), 512)
    assert (left, side) == (0, 100)
    assert top < 13  # above the hair
    assert center_square((100, 200))[1] == 50


def test_a_wide_shot_is_narrowed_to_head_and_shoulders():
    face = around(1500, 400, 200)
    square = face_square((2000, 1000), face, 512)
    left, top, right, bottom = relative_box(face, square)
    assert (right - left) * (bottom - top) == pytest.approx(WANTED_SHARE, rel=0.01)
    assert (left + right) / 2 == pytest.approx(0.5, abs=0.01)
    assert 0 < square[0] < 2000 - square[2]


def test_a_face_has_enough_pixels_at_a_low_resolution():
    face = around(1500, 400, 200)
    _, top, _, bottom = relative_box(face, face_square((2000, 1000), face, 64))
    assert (bottom - top) * 64 == pytest.approx(ENOUGH_PIXELS, abs=1)


def test_pixels_are_enlarged_twofold_at_most():
    assert face_square((2000, 1000), around(1000, 500, 20), 512)[2] == 256
    assert face_square((300, 200), around(150, 100, 20), 512) == center_square((300, 200))


@pytest.mark.parametrize("middle", [(0, 0), (1990, 5), (5, 995), (1999, 999)])
def test_the_square_stays_in_the_photo(middle):
    left, top, side = face_square((2000, 1000), around(*middle, 150), 64)
    assert 0 <= left <= 2000 - side
    assert 0 <= top <= 1000 - side


def test_a_face_beyond_the_crop_is_clipped():
    assert relative_box((-10, 20, 60, 200), (0, 0, 100)) == (0.0, 0.2, 0.6, 1.0)
