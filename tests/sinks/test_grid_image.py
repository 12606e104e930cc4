"""Strips and grids: sizes that stay readable and bounded, and what is missing is seen to be missing."""

import math

import pytest
from PIL import Image, ImageChops

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.sinks.grid_image import (
    GRID_WIDTH,
    LARGE_SHARE,
    LARGEST,
    MARGIN,
    SMALLEST,
    TILE,
    Line,
    _caption,
    _fitting_size,
    _font,
    _headings,
    _large,
    _shorten,
    _wrap,
    grid_image,
    prompt_strips,
    strip,
)
from support.runs import COLUMNS, GRID, NOTICE, evaluation, images


def contains(image: Image.Image, color: tuple[int, int, int]) -> int:
    """How many pixels have exactly this color."""
    return sum(count for count, found in image.getcolors(image.width * image.height) if found == color)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((16, 16), (128, 128)),
        ((64, 64), (128, 128)),
        ((100, 50), (200, 100)),
        ((512, 512), (512, 512)),
        ((1024, 1024), (512, 512)),
        ((1024, 512), (512, 256)),
    ],
)
def test_cells_are_brought_to_a_readable_size(size, shown):
    red = (255, 0, 0)
    image = strip([Image.new("RGB", size, red)], [[]])
    assert contains(image, red) == shown[0] * shown[1]
    assert SMALLEST <= max(shown) <= LARGEST


GRADED = {
    "a": ScoreColumn(),
    "a_stars": ScoreColumn(role="stars", of="a"),
    "a_zero_filled": ScoreColumn(role="side"),
}


def test_a_missing_image_is_a_gray_box():
    images = [Image.new("RGB", (64, 64), (255, 0, 0)), None]
    image = strip(images, [[], []])
    assert contains(image, (255, 0, 0)) == 128 * 128
    assert 0.8 * 128 * 128 < contains(image, (0xD9, 0xD9, 0xD9)) < 128 * 128  # less the words "not rendered"


def test_a_strip_of_nothing_but_missing_images_can_be_drawn():
    assert strip([None, None], [[], []], "a prompt").width > 2 * SMALLEST


def test_a_face_that_was_not_found_is_marked_in_color():
    amber = (0xB4, 0x53, 0x09)
    with_faces, without = (prompt_strips(evaluation(0, faces=n), images(), COLUMNS)[0][1] for n in (4, 0))
    assert contains(with_faces, amber) == 0
    assert contains(without, amber) > 3


def test_every_difference_in_words_is_seen():
    def drawn(title: str | None, line: Line) -> Image.Image:
        return strip([None], [[line]], title)

    base = drawn("a", Line("seed 0", "0.412"))
    for other in (
        drawn("b", Line("seed 0", "0.412")),
        drawn("a", Line("seed 1", "0.412")),
        drawn("a", Line("seed 0", "0.413")),
    ):
        assert ImageChops.difference(base, other).getbbox() is not None


def test_one_strip_a_prompt_with_the_notice_in_it():
    found = prompt_strips(evaluation(0), images(), COLUMNS, [NOTICE])
    plain = prompt_strips(evaluation(0), images(), COLUMNS)
    assert [prompt for prompt, _ in found] == list(GRID.prompts)
    assert all(a.tobytes() != b.tobytes() for (_, a), (_, b) in zip(found, plain, strict=True))


def test_the_grid_tells_scores_and_stars_in_the_words_of_the_console():
    cells = PromptGrid(["a"], seeds=(1, 2)).cells
    stars = ({"a": 0.25, "a_stars": 3.0, "b": math.nan}, {"a": 0.75, "a_stars": 4.0, "b": math.nan})
    images = tuple(ScoredImage(cell, None, scores) for cell, scores in zip(cells, stars, strict=True))
    found = _headings(Evaluation(5, None, 0.0, summarize(images, {}), images), GRADED, [NOTICE])
    assert found == ["step 5", "a 0.500 = 3.50 stars", NOTICE]
    assert _headings(Evaluation(5, None, 0.0, {}, images), GRADED, []) == ["step 5", "nothing measured"]


def test_the_score_that_decides_can_be_read_where_tensorboard_shows_the_image_small():
    cells = PromptGrid(["a"], seeds=tuple(range(6))).cells
    scores = ({"a": 0.25}, *[{"a": math.nan, "faces_found": 0.0}] * 5)
    rows = tuple(ScoredImage(cell, None, found) for cell, found in zip(cells, scores, strict=True))
    columns = {"a": ScoreColumn(), "faces_found": COLUMNS["faces_found"]}
    captions = [_caption(row, columns, "a") for row in rows]
    assert captions[0][0] == Line("", "0.25", is_large=True)
    assert captions[1][0] == Line("", "no face", True, True)
    width, cell = 6 * (SMALLEST + MARGIN) + MARGIN, SMALLEST
    size = _fitting_size(captions, _large(width, cell), cell)
    assert size * TILE / width > 9  # pixels
    assert _font("no face", size).getlength("no face") <= cell


def test_large_text_stays_a_caption_however_many_images_stand_in_a_row():
    assert _large(40 * SMALLEST, SMALLEST) == SMALLEST // LARGE_SHARE


def test_large_text_has_one_size_in_all_rows_of_a_grid(monkeypatch):
    rows = PromptGrid(["a"], images_per_prompt=3, probe_prompts=["b"], images_per_probe=6).cells
    scored = tuple(ScoredImage(cell, None, {"face_similarity": 0.5}) for cell in rows)
    sizes = []

    def noted(width, cell):
        sizes.append(_large(width, cell))
        return sizes[-1]

    monkeypatch.setattr("finetune_monitor.sinks.grid_image._large", noted)
    grid_image(Evaluation(0, None, 0.0, summarize(scored, {}), scored), [Image.new("RGB", (16, 16))] * 9, COLUMNS)
    assert len(sizes) == 3  # the heading, and two rows
    assert len(set(sizes)) == 1


def test_the_grid_begins_with_the_score_that_decides():
    assert _headings(evaluation(5), COLUMNS, [], "face_similarity")[0] == "step 5: face_similarity 0.515"
    assert _headings(evaluation(5, faces=0), COLUMNS, [], "face_similarity")[0] == "step 5"


@pytest.mark.parametrize("seeds", [1, 4, 40])
def test_the_whole_grid_stays_portable(seeds):
    cells = PromptGrid(["a", "b"], seeds=tuple(range(seeds))).cells
    images = tuple(ScoredImage(cell, None, {"face_similarity": math.nan}) for cell in cells)
    rendered = [Image.new("RGB", (512, 512))] * len(cells)
    found = grid_image(Evaluation(0, None, 0.0, summarize(images, {}), images), rendered, COLUMNS)
    assert found.width <= max(GRID_WIDTH * 1.2, seeds * 1.2 * SMALLEST)
    assert found.height < 900


def test_the_notice_stands_on_the_grid():
    noted = grid_image(evaluation(0), images(), COLUMNS, [NOTICE])
    assert noted.height > grid_image(evaluation(0), images(), COLUMNS).height


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", 0),
        ("short", 1),
        ("word " * 30, 3),
        ("unbroken" * 100, 3),
        ("一" * 100, 3),
        ("a\nb\tc", 1),
        ("<script>alert('x')</script>", 1),
        ("Łódź Привет \u202e عربى 😀", 1),
    ],
)
def test_titles_are_wrapped_into_their_width(text, lines):
    found = _wrap(text, 14, 300)
    assert len(found) == lines
    assert all(_font(text, 14).getlength(line) <= 300 for line in found)
    strip([None], [[Line(text)]], text)  # and can be drawn


def test_a_wrapped_title_loses_nothing_that_fits():
    assert " ".join(_wrap("one two three four five six", 14, 100)) == "one two three four five six"


def test_the_number_keeps_its_place_beside_a_long_name():
    assert _shorten("face_similarity_zero_filled", 12, 80).endswith("...")
    assert _shorten("aesthetic", 12, 80) == "aesthetic"


@pytest.mark.parametrize(
    ("scores", "lines"),
    [
        ({"a": 0.655, "b": 2.0}, [Line("a", "0.655"), Line("b", "2.000")]),
        ({"a": 0.655, "a_stars": 4.0, "b": 2.0}, [Line("a", "0.655  4/5"), Line("b", "2.000")]),
        ({"a": math.nan, "a_stars": math.nan}, [Line("a", "-")]),
        ({"a": 0.5, "a_stars": 1.0, "a_zero_filled": 0.5}, [Line("a", "0.500  1/5")]),
        ({"a": 0.5, "a_ava": 0.4}, [Line("a", "0.500"), Line("a_ava", "0.400")]),  # no part of `a`
        (
            {"face_similarity": 0.5, "face_similarity_held_out": 0.4},
            [Line("face_similarity", "0.500"), Line("face_similarity_held_out", "0.400")],
        ),
    ],
)
def test_stars_stand_beside_the_score_and_take_no_line(scores, lines):
    cell = PromptGrid(["a"], seeds=(7,)).cells[0]
    assert _caption(ScoredImage(cell, None, scores), GRADED) == [Line("seed 7"), *lines]
