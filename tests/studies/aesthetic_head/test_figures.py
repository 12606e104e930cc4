"""Figures are images of the data they were given, of a readable size, and nothing global changes."""

import io
import itertools
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from finetune_monitor.stats.statistics import binned
from finetune_monitor.studies.aesthetic_head import figures
from finetune_monitor.studies.aesthetic_head.figures import png

EDGES = np.linspace(0, 10, 21)
RNG = np.random.default_rng(0)
RATINGS = RNG.normal(5.4, 1, 300)
SCORES = {"balanced": RATINGS + RNG.normal(0, 0.5, 300), "unbalanced": 5.4 + 0.4 * (RATINGS - 5.4)}


def all_figures(n: int = 300) -> dict[str, Figure]:
    ratings, scores = RATINGS[:n], {name: column[:n] for name, column in SCORES.items()}
    by_score = {name: binned(ratings, column, EDGES) for name, column in scores.items()}
    by_rating = {name: binned(np.abs(column - ratings), ratings, EDGES) for name, column in scores.items()}
    return {
        "calibration": figures.calibration(by_score, (0.0, 10.0)),
        "histograms": figures.histograms(ratings, scores, EDGES, (3.5, 7.25)),
        "errors": figures.errors(by_rating, (0.0, 10.0)),
    }


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return [text for text in found if text]


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB"))


def legible(figure: Figure) -> bool:
    """No label is cut off by the image's border, and no panel, title or legend lies over another."""
    figure.draw_without_rendering()
    whole, tight = figure.bbox_inches, figure.get_tightbbox()
    parts = [*figure.axes, *figure.legends, *figure.texts]
    boxes = [part.get_tightbbox().padded(-1) for part in parts]
    apart = not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    return apart and tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= whole.x1 and tight.y1 <= whole.y1


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 300])
def test_every_figure_is_an_image_of_readable_size_with_whole_labels(n):
    for name, figure in all_figures(n).items():
        found = pixels(figure)
        assert 900 <= found.shape[1] <= 1400, name
        assert (found[0, 0] == 255).all(), name
        assert len(np.unique(found.astype(int) @ [1, 256, 65536])) > 50, name
        assert (found != 255).any(axis=2).mean() > 0.02, name
        assert legible(figure), name


@pytest.mark.slow
def test_the_same_numbers_give_the_same_file_and_others_another():
    first, again, other = all_figures(), all_figures(), all_figures(200)
    for name in first:
        assert png(first[name]) == png(again[name])
        assert png(first[name]) != png(other[name])


@pytest.mark.slow
def test_nothing_global_is_touched():
    before = dict(matplotlib.rcParams)
    for figure in all_figures().values():
        png(figure)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_figures_can_be_drawn_beside_the_main_thread():
    drawn = []
    thread = threading.Thread(target=lambda: drawn.append(png(all_figures()["errors"])))
    thread.start()
    thread.join()
    assert drawn == [png(all_figures()["errors"])]


def test_calibration_draws_the_means_where_they_are():
    bins = binned(RATINGS, SCORES["balanced"], EDGES)
    figure = figures.calibration({"balanced": bins}, (0.0, 10.0))
    diagonal, line, _ = figure.axes[0].lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_allclose(line.get_xdata(), [b.middle for b in bins])
    np.testing.assert_allclose(line.get_ydata(), [b.estimate.mean for b in bins])
    assert [patch.get_height() for patch in figure.axes[1].patches] == [b.n for b in bins]
    off = np.average([abs(b.estimate.mean - b.middle) for b in bins], weights=[b.n for b in bins])
    assert any(f"{off:.2f} off" in text for text in texts(figure))
    assert any("n = 300" in text for text in texts(figure))


def test_histograms_say_how_much_lies_far_out():
    shown = "\n".join(texts(all_figures()["histograms"]))
    for label, column in {"ratings of people (n = 300)": RATINGS, **SCORES}.items():
        below, above = 100 * (column < 3.5).mean(), 100 * (column > 7.25).mean()
        assert f"{label}: {below:.1f}% below, {above:.1f}% above" in shown
    assert "3.50 and 7.25" in shown


def test_histograms_share_their_bins_and_count_what_lies_beyond_the_scale():
    ratings, scores = np.array([1.0, 5.0]), np.array([-3.0, 99.0])
    figure = figures.histograms(ratings, {"head": scores}, EDGES, (1.0, 5.0))
    gray, head = (patch.get_data().values for patch in figure.axes[0].patches)
    assert (gray[2], gray[10], gray.sum()) == (50, 50, 100)
    assert (head[0], head[-1], head.sum()) == (50, 50, 100)


def test_errors_average_the_bins():
    ratings, error = np.array([1.0, 1.1, 1.2, 9.0]), np.array([1.0, 1.0, 1.0, 3.0])
    figure = figures.errors({"head": binned(error, ratings, EDGES)}, (0.0, 10.0))
    assert any("head: 2.00 on average over the bins" in text for text in texts(figure))
    assert {"3", "1"} <= set(texts(figure))


def test_a_name_is_no_formula_and_fits():
    name = r"$\nonsense$ " + "long " * 30
    figure = figures.calibration({name: binned(RATINGS, RATINGS, EDGES)}, (0.0, 10.0))
    png(figure)
    assert legible(figure)


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{index:02}.png" for index in range(40)]
    for index, path in enumerate(paths):
        Image.new("RGB", (20 + index, 60 - index), (6 * index, 0, 200)).save(path)
    return paths


def captions(figure: Figure) -> list[str]:
    return [text for text in texts(figure) if text.endswith(")") and text[0].isdigit()]


@pytest.mark.slow
def test_the_contact_sheet_runs_from_the_lowest_to_the_highest_score(images):
    scores = RNG.permutation(40) / 4
    ratings = np.full(40, 5.0)
    figure = figures.examples(images, ratings, scores)
    shown = captions(figure)
    assert shown[:5] == [f"{score:.2f} (5.00)" for score in (0, 0.25, 0.5, 0.75, 1)]
    assert shown[25:30] == [f"{score:.2f} (5.00)" for score in (8.75, 9, 9.25, 9.5, 9.75)]
    assert shown[30:35] == [f"{score:.2f} (5.00)" for score in (9.75, 9.5, 9.25, 9, 8.75)]
    assert shown[35:] == [f"{score:.2f} (5.00)" for score in (0, 0.25, 0.5, 0.75, 1)]
    assert len(set(shown[:30])) == 30
    assert 900 <= pixels(figure).shape[1] <= 1400
    assert legible(figure)


def test_the_sheet_shows_the_image_of_each_score(images):
    figure = figures.examples(images[:3], np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0]))
    shown = [axis.images[0].get_array()[120, 120, 0] for axis in figure.axes[:3]]
    assert shown == [6, 12, 0]


def test_an_image_that_cannot_be_read_or_has_no_score_is_left_out(images):
    images[0].write_bytes(b"nothing")
    scores = np.array([1.0, 2.0, np.nan, 4.0])
    figure = figures.examples(images[:4], np.array([1.0, 2.0, 3.0, 4.0]), scores)
    assert captions(figure) == ["2.00 (2.00)", "4.00 (4.00)"]
    assert legible(figure)


def test_a_sheet_of_nothing_is_still_a_figure(images):
    png(figures.examples(images[:1], np.array([1.0]), np.array([np.nan])))
