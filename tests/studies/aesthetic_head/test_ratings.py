"""Ratings come in as they are, or not at all: every tolerance, every refusal, and files nobody meant."""

import csv
import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import locate_images
from finetune_monitor.studies.aesthetic_head.ratings import Ratings, read_ratings
from finetune_monitor.studies.rating_problems import Problem, ProblemKind
from support import needs
from support.places import SHARED

REAL = SHARED / "ratings"
AVA = ["1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396", "2 953958 10 7 15 26 26 21 10 8 1 2 15 21 1396"]
COUNTS = [[0, 1, 5, 17, 38, 36, 15, 6, 5, 1], [10, 7, 15, 26, 26, 21, 10, 8, 1, 2]]
BAD, TWICE = ProblemKind.BAD_ROW, ProblemKind.DUPLICATE_ROW


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "ratings"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(AVA),
        "\r\n".join(AVA) + "\r\n",
        "\r".join(AVA),
        "\n\n".join(AVA) + "\n \n\n",
        "\ufeff" + "\n".join(AVA),
        "\n".join(AVA).replace(" ", "\t"),
        "\n".join(f"  {line.replace(' ', '   ')}  " for line in AVA),
    ],
    ids=["as distributed", "Windows", "old Mac", "blank lines", "byte order mark", "tabs", "spaces"],
)
def test_ava_is_read(write, content):
    path = write(content)
    ratings = read_ratings(path)
    assert (ratings.names, ratings.problems) == (("953619", "953958"), ())
    assert np.array_equal(ratings.counts, COUNTS)
    assert np.array_equal(ratings.grades, range(1, 11))
    assert ratings.means == pytest.approx([np.average(range(1, 11), weights=counts) for counts in COUNTS])
    assert (len(ratings), ratings.scale) == (2, (0, 10))
    assert ratings.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("3 7 1 2 3", "found 5 columns, expected 15"),
        ("3 7 " + "1 " * 14, "found 16 columns"),
        ("3 7 1 2 x 4 5 6 7 8 9 10 1 22 1396", "found 'x', expected whole numbers"),
        ("3 7 1 2 1.5 4 5 6 7 8 9 10 1 22 1396", r"found '1\.5'"),
        ("3 7 1 2 -1 4 5 6 7 8 9 10 1 22 1396", "found '-1'"),
        ("3 7 1 2 nan 4 5 6 7 8 9 10 1 22 1396", "found 'nan'"),
        ("3 7 1 2 1_0 4 5 6 7 8 9 10 1 22 1396", "found '1_0'"),
        ("3 7 1 2 \u0663 4 5 6 7 8 9 10 1 22 1396", "found '\u0663'"),
        ("3 ../7 1 2 3 4 5 6 7 8 9 10 1 22 1396", r"found '\.\./7'"),
        ("3 7 0 0 0 0 0 0 0 0 0 0 1 22 1396", "found 0 votes"),
        (f"3 7 1 2 1{'0' * 400} 4 5 6 7 8 9 10 1 22 1396", "found inf votes"),
        (f"3 7 1 2 1{'0' * 5000} 4 5 6 7 8 9 10 1 22 1396", "found inf votes"),
        ("3 7 1 2 9999999999999999999 4 5 6 7 8 9 10 1 22 1396", r"found 1e\+19 votes"),
    ],
)
def test_an_ava_row_that_does_not_fit_is_a_problem(write, row, detail):
    ratings = read_ratings(write("\n".join([AVA[0], "", row, AVA[1]])))
    assert ratings.names == ("953619", "953958")
    (problem,) = ratings.problems
    assert (problem.kind, problem.where) == (BAD, "line 3")
    with pytest.raises(UserError, match=detail):
        raise UserError(problem.detail)


def test_the_first_row_of_an_image_counts(write):
    same, other = AVA[0].replace("1 ", "9 ", 1), AVA[1].replace(" 10 ", " 11 ")
    ratings = read_ratings(write("\n".join([*AVA, same, other])))
    assert np.array_equal(ratings.counts, COUNTS)
    assert ratings.problems == (
        Problem(TWICE, "953619", "line 3 has the same ratings for it; the first row counts"),
        Problem(ProblemKind.CONFLICTING_ROW, "953958", "line 4 has different ratings for it; the first row counts"),
    )


def test_the_same_row_again_is_never_fatal(write):
    ratings = read_ratings(write("\n".join(["image,mean", *["a,5"] * 9])))
    assert ratings.names == ("a",)
    assert [problem.kind for problem in ratings.problems] == [TWICE] * 8


@pytest.mark.parametrize(
    ("content", "names", "means"),
    [
        ("image,mean\na.jpg,5.5\nb.jpg,0\nc.jpg,10\n", ("a.jpg", "b.jpg", "c.jpg"), [5.5, 0, 10]),
        ("mos;Image_ID\r\n5.5;7\r\n", ("7",), [5.5]),
        ("\ufeff\n \nfile\tscore\n\na b.jpg\t 5.5 \n\t\n", ("a b.jpg",), [5.5]),
        ('"PATH","note","Rating"\n"a, b.jpg","x, ""y""",5.5\n', ("a, b.jpg",), [5.5]),
        ("filename,mean\n\u00fc/\u6f22.png,5e0\n", ("\u00fc/\u6f22.png",), [5]),
        ('name,mean\n"two\nlines",5\n', ("two\nlines",), [5]),
        ("image,votes,mean,1\na,100,4,0\n", ("a",), [4]),
    ],
)
def test_a_table_of_means_is_read(write, content, names, means):
    ratings = read_ratings(write(content))
    assert (ratings.names, ratings.counts, ratings.grades, ratings.problems) == (names, None, None, ())
    assert np.array_equal(ratings.means, means)


@pytest.mark.parametrize(
    ("content", "grades", "counts", "mean"),
    [
        ("image,1,2,3,4,5\na,0,1,0,0,3\n", range(1, 6), [0, 1, 0, 0, 3], 4.25),
        ("5,4,3,2,1,image\n3,0,0,1,0,a\n", range(1, 6), [0, 1, 0, 0, 3], 4.25),
        ("1\t2\timage\n3\t1\ta\n", [1, 2], [3, 1], 1.25),
        ("image;Count_1;count_10\na;1;1\n", [1, 10], [1, 1], 5.5),
        ("mean,image,votes_1,votes_2\n9,a,3,1\n", [1, 2], [3, 1], 1.25),
        ("image,vote_0,counts_0.5\na,3.0,1e0\n", [0, 0.5], [3, 1], 0.125),
    ],
)
def test_a_table_of_votes_is_read(write, content, grades, counts, mean):
    ratings = read_ratings(write(content))
    assert (ratings.names, ratings.problems) == (("a",), ())
    assert np.array_equal(ratings.grades, grades)
    assert np.array_equal(ratings.counts, [counts])
    assert ratings.means == pytest.approx([mean])


@pytest.mark.parametrize(
    ("header", "row", "detail"),
    [
        ("image,mean", "a,", "found '', expected a number"),
        ("image,mean", "a,nan", "found 'nan', expected a finite number"),
        ("image,mean", "a,-inf", "found '-inf', expected a finite number"),
        ("image,mean", "a,1e400", "found '1e400', expected a finite number"),
        ("image,mean", "a,1" + "0" * 400, "expected a finite number"),
        ("image,mean", "a,good", "found 'good', expected a number"),
        ("image,mean", "a,10.01", "found the rating 10.01, expected 0 to 10"),
        ("image,mean", "a,-1", "found the rating -1"),
        ("image,mean", " ,5", "found no image name"),
        ("image,mean", "a", "found 1 columns, expected 2"),
        ("image,mean", "a,b.jpg,5", "found 3 columns, expected 2"),
        ("image,1,2", "a,1,", "found '', expected a number"),
        ("image,1,2", "a,1,0.5", "found '0.5' votes, expected a whole number"),
        ("image,1,2", "a,1,-1", "found '-1' votes"),
        ("image,1,2", "a,0,0", "found 0 votes"),
        ("image,1,2", "a,1,1e18", "found 1e+18 votes"),
        ("image,1,2", "a,1e308,1e308", "found inf votes"),
    ],
)
def test_a_row_of_a_table_that_does_not_fit_is_a_problem(write, header, row, detail):
    good = "g" + ",1" * header.count(",")
    ratings = read_ratings(write("\n".join([header, row, good])))
    assert ratings.names == ("g",)
    (problem,) = ratings.problems
    assert (problem.kind, problem.where) == (BAD, "line 2")
    assert detail in problem.detail


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("motif,mean\na,5\n", "found the columns 'motif', 'mean'; expected one column of images"),
        ("image,nima\na,5\n", "either one of mean ratings"),
        ("image,file,mean\na,a,5\n", "found the columns 'image', 'file', 'mean'"),
        ("image,mean,score\na,5,5\n", "one of mean ratings"),
        ("image,1,votes_1,2\na,5,5,5\n", "found the columns"),
        ("image,1\na,5\n", "found the columns"),
        ("a.jpg,5.5\nb.jpg,6\n", r"found the columns 'a\.jpg', '5\.5'"),
        ("a.jpg 5.5\nb.jpg 6\n", "found the columns"),
        (",,,\n", "found the columns none"),
        (f"{'x' * 1000}," * 1000, "found the columns"),
        ("image,0,11\na,1,1\n", "found votes for the ratings 0 to 11, expected them within 0 to 10; use --scale"),
        (f"image,1,1{'0' * 400}\na,1,1\n", "ratings 1 to inf"),
        ("image,mean\n", "found no rows"),
        (
            "image,mean\na,55\nb,5\nc,44\n",
            r"2 of 3 rows are not usable.*--scale LOW HIGH.*\n  - line 2: found the rating 55",
        ),
        ("image,mean\na,x\n", "1 of 1 rows are not usable"),
        ("study,rater,image,rating\n1,1,a,5\n1,2,a,6\n1,3,a,4\n", "2 of 3 rows.*one row per image"),
        ("1 2 3\n4 5 6\n", "2 of 2 rows.*\n.*found 3 columns, expected 15"),
        ('image,mean\n"a,5\nb,5\n', "damaged at line"),
        ("image,mean\n" + "a" * 200_000 + ",5\n", "damaged at line 2"),
        ("", "the file is empty"),
        (" \n\r\n\ufeff", "found the columns"),
        (b"image,mean\n\xff\xfe,5\n", "not UTF-8 text"),
        ("image,mean\na,5\n".encode("utf-16"), "not UTF-8 text"),
        (b"PK\x03\x04\0\0", "not UTF-8 text"),
    ],
)
def test_a_file_without_usable_ratings_is_refused(write, content, reason):
    with pytest.raises(UserError, match=f"ratings: (?s:.*){reason}"):
        read_ratings(write(content))


def test_half_of_the_rows_may_be_bad(write):
    assert len(read_ratings(write("image,mean\na,55\nb,5\n"))) == 1


def test_what_is_no_file_is_refused(tmp_path):
    for path, reason in [
        (tmp_path, "directory"),
        (tmp_path / "gone", "No such file"),
        (tmp_path / ("x" * 999), "long"),
    ]:
        with pytest.raises(UserError, match=reason):
            read_ratings(path)


@pytest.mark.parametrize("scale", [(5, 5), (5, 1), (float("nan"), 1), (0, float("inf"))])
def test_a_scale_is_two_ascending_numbers(write, scale):
    with pytest.raises(UserError, match="--scale: found"):
        read_ratings(write("image,mean\na,5\n"), scale)


def test_the_scale_is_kept_and_bounds_the_ratings(write):
    path = write("image,mean\na,55\nb,100\nc,101\n")
    ratings = read_ratings(path, (0, 100))
    assert (ratings.names, ratings.scale) == (("a", "b"), (0, 100))
    with pytest.raises(UserError, match="votes for the ratings 1 to 10, expected them within 0 to 5"):
        read_ratings(write(AVA[0]), (0, 5))


def test_rows_are_taken_in_order(write):
    ratings = read_ratings(write("\n".join([*AVA, "3", AVA[0]])))
    taken = ratings.take([1])
    assert (taken.names, taken.problems, taken.sha256) == (("953958",), ratings.problems, ratings.sha256)
    assert np.array_equal(taken.counts, COUNTS[1:])
    assert np.array_equal(taken.means, ratings.means[1:])
    assert ratings.take(np.array([1, 0])).names == ("953958", "953619")
    assert len(ratings.take([])) == 0
    assert read_ratings(write("image,mean\na,5\n")).take([0]).counts is None
    assert sorted(problem.kind for problem in ratings.problems) == [BAD, TWICE]


FORMATS = {
    "": [*AVA, "3 5 0 0 0 1 0 0 0 0 0 0 0 0 1", ""],
    "image,mean": ["a,5", "b,7.25", '"a, b",0', "c,"],
    "image;1;2": ["a;1;2", "b;0;1", "c;0;0"],
    "score\tfile": ["5\ta", "1\tb", "11\tc"],
}
NOISE = st.sampled_from(
    ["\0", "\r", "\n", ",", ";", "\t", '"', " ", "-", "nan", "1e400", "9" * 400, "\x1c", "\u2028", "."]
)


@st.composite
def mutated(draw) -> bytes:
    """Lines of either format, with pieces replaced."""
    header = draw(st.sampled_from([*FORMATS]))
    rows = draw(st.lists(st.sampled_from(FORMATS[header]), min_size=1, max_size=6))
    text = draw(st.sampled_from(["\n", "\r\n"])).join([header, *rows])
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(NOISE) + text[start + draw(st.integers(0, 3)) :]
    return text.encode()


NUMBERS = st.one_of(st.integers(0, 10).map(str), st.integers(-5, 10**20).map(str), st.floats().map(str), st.just("x"))
TABLES = st.lists(st.tuples(st.sampled_from("abcde"), NUMBERS, NUMBERS), max_size=6).flatmap(
    lambda rows: st.sampled_from(["image,mean,sd\n", "image,1,2\n", "image,votes_0,votes_10\n"]).map(
        lambda header: (header + "\n".join(map(",".join, rows))).encode()
    )
)


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), mutated(), TABLES))
def test_any_file_gives_sound_ratings_or_one_error(content):
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            ratings = read_ratings(file.name)
        except UserError:
            return
        check(ratings)


def check(ratings: Ratings) -> None:
    assert len(ratings) == len(ratings.means) == len(set(ratings.names)) > 0
    assert all(ratings.names)
    assert np.all((ratings.means >= 0) & (ratings.means <= 10))  # false for nan
    assert sum(problem.kind != TWICE for problem in ratings.problems) <= len(ratings)
    if ratings.counts is not None:
        assert ratings.counts.shape == (len(ratings), len(ratings.grades))
        assert np.all(ratings.counts >= 0)
        assert np.all(ratings.counts == np.round(ratings.counts))
        assert np.all(ratings.counts.sum(axis=1) > 0)
        assert np.all(np.diff(ratings.grades) > 0)


@needs.shared("ratings")
def test_real_ratings_and_their_images(write):
    with (REAL / "avt_2022_nima.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ratings = read_ratings(write("image,mean\n" + "\n".join(f"{row['image']},{row['nima']}" for row in rows)))
    located = dict(zip(ratings.names, locate_images(ratings.names, REAL / "images"), strict=True))
    assert (len(ratings), ratings.problems) == (146, ())
    assert [name for name, path in located.items() if path is None] == ["midjourney/p25.png"]
    assert located["midjourney/p11.png"] == REAL / "images/midjourney/p11.jpg"
    with pytest.raises(UserError, match="one row per image"):
        read_ratings(REAL / "avt_2022_per_rater.csv")
