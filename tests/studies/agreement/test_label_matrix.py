"""Ratings become the matrix they mean, and a labeler who was careless, contrary or absent is found."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.agreement.label_matrix import LabelTable, describe_labelers, label_tables, table_notes
from finetune_monitor.studies.agreement.rating_files import read_rating_files
from finetune_monitor.studies.labeling.ratings import Rating
from support import needs
from support.places import SHARED

REAL = SHARED / "ratings/avt_2022_per_rater.csv"
NONE = float("nan")


def rated(image: str, labeler: str, label: int, timestamp: str = "", ms: int | None = None) -> Rating:
    return Rating(image, labeler, "m", label, timestamp, ms)


def table_of(labels: dict[str, list[int | None]], ms: int | None = None) -> LabelTable:
    """One labeler a key; images are i0, i1, ..."""
    ratings = [
        rated(f"i{place}", labeler, label, ms=ms)
        for labeler, row in labels.items()
        for place, label in enumerate(row)
        if label
    ]
    return label_tables(ratings)["m"]


def equal(found: np.ndarray, expected: list) -> bool:
    return np.array_equal(found, np.array(expected, dtype=float), equal_nan=True)


def test_there_is_a_table_a_metric_in_natural_order():
    ratings = [
        Rating("i10", "r10", "n", 1, duration_ms=700),
        Rating("i2", "Zoe", "n", 2),
        Rating("i2", "r2", "n", 3),
        Rating("I3", "adam", "n", 4),
        Rating("i03", "r2", "n", 5),
        Rating("i2", "r2", "m10", 1),
        Rating("i2", "r2", "m9", 2),
    ]
    tables = label_tables(ratings)
    assert list(tables) == ["m9", "m10", "n"]
    table = tables["n"]
    assert (table.metric, table.replaced) == ("n", 0)
    assert table.labelers == ("adam", "r2", "r10", "Zoe")
    assert table.images == ("i2", "I3", "i03", "i10")
    expected = [[NONE, 4, NONE, NONE], [3, NONE, 5, NONE], [NONE, NONE, NONE, 1], [2, NONE, NONE, NONE]]
    assert equal(table.labels, expected)
    assert equal(table.durations, [[NONE] * 4, [NONE] * 4, [NONE, NONE, NONE, 700], [NONE] * 4])
    assert label_tables([]) == {}


@settings(deadline=None)
@given(st.lists(st.builds(rated, st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 5)), min_size=1))
def test_the_table_holds_the_last_of_each_and_counts_the_others(ratings):
    table = label_tables(ratings)["m"]
    last = {(rating.labeler, rating.image_id): rating.label for rating in ratings}
    found = {
        (labeler, image): table.labels[row, column]
        for row, labeler in enumerate(table.labelers)
        for column, image in enumerate(table.images)
        if not np.isnan(table.labels[row, column])
    }
    assert found == last
    assert table.replaced == len(ratings) - len(last)


@pytest.mark.parametrize(
    ("times", "label"),
    [
        (["", "", ""], 3),
        (["2026-01-03T00:00Z", "2026-01-02T00:00Z", "2026-01-01T00:00Z"], 1),
        (["2026-01-03T00:00Z", "", "2026-01-01T00:00Z"], 3),
        (["2026-01-01T00:30+02:00", "2026-01-01T00:00Z", "2025-12-31T23:59Z"], 2),
        (["2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.500000+00:00"], 3),
    ],
)
def test_the_latest_counts_by_time_or_else_by_order(times, label):
    table = label_tables([rated("a", "x", place, time) for place, time in enumerate(times, 1)])["m"]
    assert (table.labels.item(), table.replaced) == (label, 2)


def test_a_repeat_is_a_pair_and_no_sample():
    ratings = [
        rated("a", "x", 1),
        rated("a2", "x", 2),
        rated("a2", "x", 3),
        rated("b", "x", 4),
        rated("b2", "x", 4),
        rated("a", "y", 5),
        rated("b2", "y", 5),
        rated("a2", "z", 1),
    ]
    table = label_tables(ratings, {"b2": "b", "a2": "a", "c2": "c"})["m"]
    assert (table.images, table.labelers, table.replaced) == (("a", "b"), ("x", "y"), 1)
    assert equal(table.labels, [[1, 4], [5, NONE]])
    assert equal(table.repeats["x"], [[1, 3], [4, 4]])
    assert table.repeats["y"].shape == (0, 2)
    x, y = describe_labelers(table)
    assert (x.n, x.consistency, x.repeats) == (2, 0.5, 2)
    assert (y.n, y.repeats) == (1, 0)
    assert np.isnan(y.consistency)
    assert label_tables([rated("a2", "x", 1)], {"a2": "a"}) == {}


def test_who_labeled_too_few_is_left_out_and_so_are_images_that_nobody_else_saw():
    table = table_of({"x": [1, 2, 3, None], "y": [5, 4, None, None], "z": [None, None, None, 1]}, ms=900)
    assert table.coverage == pytest.approx([0.75, 0.5, 0.25])
    kept = table.complete(0.5)
    assert (kept.labelers, kept.images, list(kept.repeats)) == (("x", "y"), ("i0", "i1", "i2"), ["x", "y"])
    assert equal(kept.labels, [[1, 2, 3], [5, 4, NONE]])
    assert equal(kept.durations, [[900, 900, 900], [900, 900, NONE]])
    assert table.complete(0).images == table.images
    with pytest.raises(
        UserError, match=r"m: none of its 3 labelers labeled 80% of the 4 images; the maximum is 75\.0%"
    ):
        table.complete(0.8)


def test_a_labeler_is_described():
    table = table_of({"x": [1, 1, 2, 5], "y": [1, 2, 3, 5], "z": [2, 1, 4, None]})
    x, _, z = describe_labelers(table)
    assert (x.name, x.n, x.coverage, x.mean, x.constant) == ("x", 4, 1, 2.25, False)
    assert x.deviation == pytest.approx(np.std([1, 1, 2, 5]))
    assert x.shares == (0.5, 0.25, 0, 0, 0.25)
    assert np.isnan([x.median_ms, x.hasty, x.consistency]).all()
    assert (z.n, z.coverage) == (3, 0.75)
    assert x.others == pytest.approx(spearmanr([1, 1, 2], [1.5, 1.5, 3.5])[0])  # only y rated the last
    assert z.others == pytest.approx(spearmanr([2, 1, 4], [1, 1.5, 2.5])[0])


def test_two_labelers_have_no_mean_of_others():
    assert np.isnan([each.others for each in describe_labelers(table_of({"x": [1, 2, 3], "y": [1, 2, 3]}))]).all()


@pytest.mark.parametrize(
    ("row", "constant"), [([3, 3, 3], True), ([3, None, 3], True), ([3, None, None], False), ([3, 3, 4], False)]
)
def test_a_constant_is_two_or_more_of_the_same(row, constant):
    assert describe_labelers(table_of({"x": row, "y": [1, 2, 3]}))[0].constant == constant


def test_durations_are_summed_up():
    times = [100, 299, 300, 4000, None]
    table = label_tables([rated(f"i{place}", "x", 1, ms=ms) for place, ms in enumerate(times)])["m"]
    (found,) = describe_labelers(table)
    assert (found.median_ms, found.hasty) == (299.5, 0.5)


def test_a_sound_table_needs_no_note():
    table = table_of({"x": [1, 2, 3, 4], "y": [1, 3, 3, 5], "z": [2, 2, 4, 4]}, ms=900)
    assert table_notes(table) == []
    assert table_notes(table_of({"x": [1, 2, 3], "y": [3, 2, 1]})) == []


def test_everything_odd_is_noted_at_once():
    names = [f"i{place}" for place in range(10)]
    good = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
    rows = {"x": good, "y": good, "contrary": [6 - label for label in good], "flat": [3] * 10}
    ratings = [
        rated(name, labeler, label) for labeler, row in rows.items() for name, label in zip(names, row, strict=True)
    ]
    hasty = [
        rated(name, "hasty", label, ms=250 if label == 1 else 800) for name, label in zip(names, good, strict=True)
    ]
    ratings += [*hasty, rated("i0", "absent", 1), rated("i0", "absent", 2), rated("alone", "x", 1)]
    assert table_notes(label_tables(ratings)["m"]) == [
        "14 of 66 labels are missing (21%).",
        "1 earlier rating of the same image by the same labeler left out, because only the latest counts.",
        "1 image with fewer than 2 labels: alone.",
        "1 labeler who always gave the same answer: flat.",
        "1 labeler who labeled less than half of the images: absent (9%).",
        "1 labeler whose Spearman against the mean of the others is negative; is the scale reversed? contrary (-1.00).",
        "1 labeler with at least a fifth of the answers in under 300 ms: hasty (20%).",
    ]


def test_long_lists_are_cut_and_small_shares_are_not_nothing():
    rows = {f"r{place}": [1 + place % 5, None, 3] for place in range(8)}
    notes = table_notes(table_of({"all": [1, 2, 3], **rows}))
    assert "1 image with fewer than 2 labels: i1." in notes
    table = table_of({f"r{place}": [3, 3, 3] for place in range(8)})
    assert table_notes(table) == ["8 labelers who always gave the same answer: r0, r1, r2, r3, r4 and 3 more."]
    full = np.ones((2, 200))
    full[0, 0] = NONE
    images = tuple(f"i{place}" for place in range(200))
    one_gap = replace(table, labelers=("r0", "r1"), images=images, labels=full, durations=full * NONE)
    assert table_notes(one_gap)[0] == "1 of 400 labels are missing (under 1%)."


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 8), st.floats(0.2, 1), st.integers(0, 99))
def test_any_table_is_described_without_a_warning(labelers, images, share, seed):
    generator = random.Random(seed)
    ratings = [
        rated(f"i{image}", f"r{labeler}", generator.randint(1, 5), ms=generator.choice([None, 200, 900]))
        for labeler in range(labelers)
        for image in range(images)
        if generator.random() < share
    ]
    for table in label_tables(ratings).values():
        for found, row in zip(describe_labelers(table), table.labels, strict=True):
            given_labels = row[~np.isnan(row)]
            assert found.n == len(given_labels) > 0
            assert sum(found.shares) == pytest.approx(1)
            assert found.mean == pytest.approx(np.dot(found.shares, range(1, 6)))
            assert found.constant == (found.n > 1 and found.deviation == 0)
            assert np.isnan(found.others) or -1 <= found.others <= 1
        assert all(note.endswith((".", ")")) for note in table_notes(table))


@needs.shared("ratings")
def test_the_real_ratings_are_those_that_are_known():
    tables = label_tables(read_rating_files([REAL]).ratings)
    assert list(tables) == ["image_appeal", "prompt_matching", "realism"]
    for table in tables.values():
        assert (len(table.images), len(table.labelers), table.replaced) == (146, 27, 3)
        assert (~np.isnan(table.labels)).sum() == 3382
        assert sum(found.n >= 140 for found in describe_labelers(table)) == 22
    appeal = tables["image_appeal"]
    assert np.mean([found.others for found in describe_labelers(appeal)]) == pytest.approx(0.58, abs=0.005)
    near_complete = appeal.complete(140 / 146)
    assert near_complete.labels.shape == (22, 146)
    assert np.mean([found.others for found in describe_labelers(near_complete)]) == pytest.approx(0.58, abs=0.005)
    place = appeal.labelers.index("7"), appeal.images.index("glide/p20.png")
    assert tables["prompt_matching"].labels[place] == 1  # rated 3 first, then 1
    assert "5 labelers who labeled less than half of the images: 82 (5%)" in " ".join(table_notes(appeal))
