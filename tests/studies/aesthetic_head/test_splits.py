"""Every image has its place by what it shows, or by the lists that name it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.aesthetic_head.splits import (
    Lists,
    Split,
    folds,
    listed_rows,
    make_split,
    read_list,
    wanted_rows,
    without_test,
)
from finetune_monitor.studies.rating_problems import Problem, ProblemKind


def digests(names: list[str]) -> list[str]:
    return [hashlib.sha256(name.encode()).hexdigest() for name in names]


def named(split: Split, names: list[str]) -> dict[str, set[str]]:
    return {part: {names[row] for row in getattr(split, part)} for part in ("train", "validation", "test")}


NAMES = [f"{index}" for index in range(2000)]
SETS = st.lists(st.text(max_size=5), unique=True, min_size=3, max_size=60)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(SETS, st.randoms(use_true_random=False))
def test_parts_are_disjoint_complete_and_independent_of_the_order(names, random):
    split = make_split(names, digests(names))
    rows = np.concatenate([split.train, split.validation, split.test])
    assert sorted(rows) == list(range(len(names)))
    assert min(len(split.train), len(split.validation), len(split.test)) > 0
    for part in (split.train, split.validation, split.test):
        assert np.all(np.diff(part) > 0)
    shuffled = random.sample(names, len(names))
    again = make_split(shuffled, digests(shuffled))
    assert named(again, shuffled) == named(split, names)
    assert again.sha256 == split.sha256


def test_the_content_alone_decides():
    split = make_split(NAMES, digests(NAMES))
    first = [int(digest[:16], 16) / 2**64 for digest in digests(NAMES)]
    assert np.array_equal(split.test, np.flatnonzero(np.array(first) < 0.1))
    assert np.array_equal(split.validation, np.flatnonzero((np.array(first) >= 0.1) & (np.array(first) < 0.2)))
    renamed = make_split([f"x{name}" for name in NAMES], digests(NAMES))
    assert np.array_equal(renamed.test, split.test)
    assert renamed.sha256 != split.sha256
    fewer = make_split(NAMES[:1000], digests(NAMES[:1000]))
    assert np.array_equal(fewer.test, split.test[split.test < 1000])


def test_the_split_is_the_same_on_every_machine():
    split = make_split(NAMES, digests(NAMES))
    assert [len(split.train), len(split.validation), len(split.test)] == [1584, 212, 204]
    assert split.sha256 == "b382c51ccff88d5851b2ae13c760340738b585de4f7d6908726c34865e42fd40"


def test_one_image_under_two_names_is_in_one_part():
    names = [f"{name}{copy}" for name in NAMES[:100] for copy in "ab"]
    split = make_split(names, digests([name[:-1] for name in names]))
    for part in named(split, names).values():
        assert {name[:-1] + "a" for name in part} == {name for name in part if name.endswith("a")}
    number = folds(digests([name[:-1] for name in names]), 7)
    assert np.array_equal(number[::2], number[1::2])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_are_refused(count):
    with pytest.raises(UserError, match=f"found {count} different rated images .* expected 3 or more"):
        make_split(NAMES[:count], digests(NAMES[:count]))


@pytest.fixture
def write(tmp_path):
    def write(part: str, names: list[str]) -> Path:
        path = tmp_path / f"{part}.jpgl"
        path.write_text("\n".join(names))
        return path

    return write


def test_all_three_lists(write):
    lists = {part: write(part, names) for part, names in PARTS.items()}
    split = make_split(NAMES, digests(NAMES), Lists(**lists))
    assert named(split, NAMES) == {part: set(names) for part, names in PARTS.items()}
    assert wanted_rows(NAMES, Lists(**lists))[1] == []


PARTS = {"train": NAMES[:300], "validation": NAMES[300:330], "test": NAMES[330:400]}


@pytest.mark.parametrize(
    "given_parts", [("test",), ("validation",), ("train",), ("train", "test"), ("test", "validation")]
)
def test_what_no_list_gives_is_divided_by_content(write, given_parts):
    lists = {part: write(part, PARTS[part]) for part in given_parts}
    split = make_split(NAMES, digests(NAMES), Lists(**lists))
    parts = named(split, NAMES)
    fixed = set().union(*(PARTS[part] for part in given_parts if part != "train"))
    pool = set(PARTS["train"]) if "train" in given_parts else set(NAMES) - fixed
    for part in given_parts:
        assert parts[part] == set(PARTS[part]) if part != "train" else parts[part] < set(PARTS[part])
    assert set().union(*parts.values()) == pool | fixed
    assert sum(map(len, parts.values())) == len(pool | fixed)
    for part in {"validation", "test"} - {*given_parts}:
        assert parts[part] < pool
        assert len(parts[part]) == pytest.approx(len(pool) / 10, rel=0.35)


def test_names_match_with_and_without_suffix(write):
    names = ["1.jpg", "2.png", "3", "sub/4.JPG", "5.jpg", "5.png", "6", "7"]
    test = write("test", ["1", "2.jpg", "3.jpeg", "sub/4", "5"])
    split = make_split(names, digests(names), Lists(test=test))
    assert list(split.test) == [0, 1, 2, 3, 4, 5]
    exact = make_split(names, digests(names), Lists(test=write("test", ["5.png"])))
    assert list(exact.test) == [5]


def test_listed_names_without_a_rating_are_problems(write):
    test = write("test", ["3", "9999", "x.jpg", "9999"])
    assert list(make_split(NAMES, digests(NAMES), Lists(test=test)).test) == [3]
    _, problems = wanted_rows(NAMES, Lists(test=test))
    detail = f"in {test}, without a rating or a usable image"
    assert problems == [Problem(ProblemKind.NOT_RATED, name, detail) for name in ("9999", "x.jpg")]


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"test": ["x", "y"]}, "none of its 2 names is a rated image; found 'x', expected names such as '0'"),
        ({"test": NAMES[:5], "train": NAMES[4:9]}, "--test and --train: found 1 images in both, such as '4'"),
        ({"test": ["1"], "validation": ["1.jpg"]}, "--test and --validation: found 1 images in both"),
        ({"test": NAMES}, "found 0 different rated images to split into validation, train; expected 2 or more"),
        ({"test": NAMES[:9], "validation": NAMES[9:]}, "found 0 different rated images to split into train"),
        ({"train": NAMES[:2]}, "found 2 different rated images to split into test, validation, train"),
        ({"test": [" ", ""]}, "the list is empty"),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(write, lists, reason):
    with pytest.raises(UserError, match=reason):
        make_split(NAMES, digests(NAMES), Lists(**{part: write(part, names) for part, names in lists.items()}))


@pytest.mark.parametrize("content", ["1\n2.jpg\n", "\ufeff1\r\n\r\n 2.jpg \r\n", "\n\n1\t\n2.jpg"])
def test_a_list_is_read(tmp_path, content):
    (tmp_path / "list").write_bytes(content.encode())
    assert read_list(tmp_path / "list") == ["1", "2.jpg"]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_any_list_gives_names_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.jpgl"
    path.write_bytes(content)
    try:
        names = read_list(path)
    except UserError:
        return
    assert names
    assert all(name == name.strip() != "" for name in names)


def test_a_missing_list_is_refused(tmp_path):
    for path, reason in [(tmp_path, "directory"), (tmp_path / "gone", "No such file")]:
        with pytest.raises(UserError, match=f"{reason}.*one image name per line"):
            read_list(path)


@settings(deadline=None, max_examples=100)
@given(SETS, st.integers(2, 10), st.randoms(use_true_random=False))
def test_folds_are_even_and_independent_of_the_order(names, count, random):
    count = min(count, len(names))
    number = folds(digests(names), count)
    sizes = np.bincount(number, minlength=count)
    assert (len(number), len(sizes)) == (len(names), count)
    assert sizes.max() - sizes.min() <= 1
    shuffled = random.sample(names, len(names))
    assert dict(zip(names, number, strict=True)) == dict(zip(shuffled, folds(digests(shuffled), count), strict=True))


@pytest.mark.parametrize(("images", "count"), [(5, 1), (5, 0), (5, -2), (4, 5), (0, 2)])
def test_folds_that_cannot_be_filled_are_refused(images, count):
    with pytest.raises(UserError, match=f"found {images} different rated images for {count} folds"):
        folds(digests(NAMES[:images]), count)


def test_without_a_test_part_the_content_divides_the_rest():
    split, whole = without_test(NAMES, digests(NAMES)), make_split(NAMES, digests(NAMES))
    assert len(split.test) == 0
    assert sorted([*split.train, *split.validation]) == list(range(2000))
    assert np.array_equal(split.validation, whole.test)  # the lowest tenth of the digests either way
    with pytest.raises(UserError, match="found 1 different rated images to split into validation, train"):
        without_test(["a"], digests(["a"]))


def test_the_rows_of_a_list(tmp_path):
    (tmp_path / "list").write_text("7\n3.jpg\nnowhere\n7\n")
    rows, problems = listed_rows(tmp_path / "list", NAMES)
    assert rows.tolist() == [3, 7]
    assert [(problem.kind, problem.where) for problem in problems] == [(ProblemKind.NOT_RATED, "nowhere")]


def test_only_images_that_a_split_uses_are_wanted(write):
    train, test = write("train", NAMES[5:9]), write("test", ["3", "nowhere"])
    assert wanted_rows(NAMES, Lists(train, test=test))[0].tolist() == [3, 5, 6, 7, 8]
    assert wanted_rows(NAMES, Lists(test=test))[0].tolist() == list(range(2000))
    with pytest.raises(UserError, match="--test and --train"):
        wanted_rows(NAMES, Lists(train, test=train))
