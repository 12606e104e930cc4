"""Images are encoded while others are rendered; the files are those of an encoder that was given them at the end."""

import threading

import pytest
from PIL import Image

from finetune_monitor.record.png import PngEncoder
from support.runs import GRID, images

CELLS = GRID.cells


def encoding() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("png")]


def test_the_files_are_the_same_whenever_encoding_began():
    shown = images(missing=(1,))
    ahead, late = PngEncoder(GRID), PngEncoder(GRID)
    ahead.begin(50, CELLS[:2], shown[:2])
    ahead.begin(50, CELLS[2:], shown[2:])
    assert ahead.finish(50, shown) == late.finish(50, shown)


def test_no_thread_is_left_and_the_next_evaluation_begins_anew():
    encoder = PngEncoder(GRID)
    encoder.begin(50, CELLS, images())
    assert encoding()
    first = encoder.finish(50, images())
    assert not encoding()
    second = encoder.finish(100, images())
    assert None not in first
    assert all(a != b for a, b in zip(first, second, strict=True))  # the text in the file names the step


def test_what_was_encoded_for_an_evaluation_that_failed_is_not_taken_for_another():
    encoder = PngEncoder(GRID)
    shown = images()
    encoder.begin(50, CELLS[:2], shown[:2])
    assert encoder.finish(100, shown) == PngEncoder(GRID).finish(100, shown)


def test_the_image_that_is_given_at_the_end_counts():
    """Such as one rendered again after the memory ran out."""
    encoder = PngEncoder(GRID)
    encoder.begin(50, CELLS, [Image.new("RGB", (16, 16), "red")] * len(CELLS))
    assert encoder.finish(50, images()) == PngEncoder(GRID).finish(50, images())


def test_an_image_that_cannot_be_encoded_is_an_error_when_its_file_is_asked_for():
    encoder = PngEncoder(GRID)
    broken = [Image.new("F", (16, 16)), *images()[1:]]
    encoder.begin(50, CELLS, broken)
    with pytest.raises(OSError, match="cannot write mode F as PNG"):
        encoder.finish(50, broken)
    assert not encoding()
