"""The file of thresholds: what is written is read back exactly, and whatever else is read is one error in words."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics.thresholds import (
    LARGEST_FILE,
    Buckets,
    Thresholds,
    read_thresholds,
    weights_of,
    write_thresholds,
)

WEIGHTS = {"recognizer": {"id": "vggface2", "sha256": "ab" * 32}}
MAY_STAY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def thresholds(metric: str = "face_similarity", values=(0.1, 0.2, 0.3, 0.4), weights=WEIGHTS) -> Thresholds:
    return Thresholds(metric, Buckets(np.array(values, dtype=np.float64), 12.5), "least_cost", 1.0, 5, 64, 320, weights)


def content(folder: Path) -> dict:
    """What a whole file holds."""
    write_thresholds(folder / "whole.json", [thresholds()])
    return json.loads((folder / "whole.json").read_text())


@MAY_STAY
@given(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4).map(sorted), st.sampled_from([WEIGHTS, {}, None]))
def test_what_is_written_is_read_back_exactly(tmp_path, values, weights):
    written = [thresholds("face_similarity", values, weights), thresholds("aesthetic", (-math.inf,) * 4)]
    write_thresholds(tmp_path / "thresholds.json", written)
    found = read_thresholds(tmp_path / "thresholds.json")
    assert list(found) == ["face_similarity", "aesthetic"]
    for name, each in zip(found, written, strict=True):
        assert np.array_equal(found[name].buckets.thresholds, each.buckets.thresholds)
        assert {**vars(found[name]), "buckets": None} == {**vars(each), "buckets": None}


def test_a_score_at_a_threshold_has_the_higher_star_and_a_missing_one_has_none():
    found = thresholds(values=(-math.inf, 0.2, 0.3, math.inf)).stars(np.array([-1.0, 0.2, 0.29, 0.3, 9.0, math.nan]))
    assert np.array_equal(found, [2, 3, 3, 4, 4, math.nan], equal_nan=True)


def test_weights_are_what_a_score_depends_on():
    described = {**WEIGHTS, "references": [{"file": "a"}], "notice": "demo", "thresholds": [1, 2, 3, 4]}
    assert weights_of(described) == WEIGHTS


ROW = "metrics.face_similarity"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", 2, "format: found 2, expected 1"),
        ("metrics", [], "metrics: found []"),
        ("metrics", {}, "metrics: found {}"),
        ("metrics", {"face_similarity": 3}, f"{ROW}: found 3"),
        (f"{ROW}.thresholds", [0.1, 0.2, 0.3], f"{ROW}.thresholds: found [0.1, 0.2, 0.3]"),
        (f"{ROW}.thresholds", [0.1, 0.2, 0.3, 0.4, 0.5], f"{ROW}.thresholds"),
        (f"{ROW}.thresholds", [0.1, 0.3, 0.2, 0.4], "ascending"),
        (f"{ROW}.thresholds", [0.1, None, 0.2, 0.4], "ascending"),
        (f"{ROW}.thresholds", [None, 0.1, 0.2, 0.4], "ascending"),
        (f"{ROW}.thresholds", [0.1, 0.2, 0.3, math.nan], f"{ROW}.thresholds.3: found nan"),
        (f"{ROW}.thresholds", [0.1, 0.2, 0.3, math.inf], f"{ROW}.thresholds.3: found inf"),
        (f"{ROW}.thresholds", [0.1, 0.2, 0.3, "0.4"], f"{ROW}.thresholds.3: found '0.4'"),
        (f"{ROW}.thresholds", [False, 0.2, 0.3, True], f"{ROW}.thresholds.0: found False"),
        (f"{ROW}.empty_below", 2, "the first 2 of them null"),
        (f"{ROW}.empty_below", True, f"{ROW}.empty_below: found True"),
        (f"{ROW}.cost", math.nan, f"{ROW}.cost: found nan"),
        (f"{ROW}.power", 0, f"{ROW}.power: found 0"),
        (f"{ROW}.labelers", 0, f"{ROW}.labelers: found 0"),
        (f"{ROW}.images", 1.5, f"{ROW}.images: found 1.5"),
        (f"{ROW}.method", None, f"{ROW}.method: found None"),
        (f"{ROW}.weights", "vggface2", f"{ROW}.weights: found 'vggface2'"),
        (f"{ROW}.method", ["x" * 1000], "xxx…, expected text"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path, key, value, said):
    damaged = content(tmp_path)
    *parents, last = key.split(".")
    inner = damaged
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_thresholds(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "`finetune-monitor agree`" in str(caught.value)
    assert "expected" in str(caught.value).splitlines()[-1]
    assert not re.search(r"should|input|valid", str(caught.value).splitlines()[-1])  # pydantic's words


def test_all_problems_are_named_at_once(tmp_path):
    damaged = content(tmp_path)
    damaged["metrics"]["face_similarity"] |= {"cost": None, "labels": -1}
    del damaged["metrics"]["face_similarity"]["weights"]
    (tmp_path / "thresholds.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=r"(?s)\.cost: .*\.labels: .*\.weights: "):
        read_thresholds(tmp_path / "thresholds.json")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "damaged"),
        (b"{", "damaged.*\n  - not valid JSON"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"1" * 5000, "damaged"),
        (b'{"format": 1, "metrics": 1e999}', "damaged"),
        (b" " * (LARGEST_FILE + 1), "larger than 1 MB"),
    ],
    ids=["empty", "torn", "bytes", "deep", "long number", "overflow", "huge"],
)
def test_another_file_is_an_error(tmp_path, written, said):
    (tmp_path / "thresholds.json").write_bytes(written)
    with pytest.raises(UserError, match=said):
        read_thresholds(str(tmp_path / "thresholds.json"))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: No such file"):
        read_thresholds(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="Is a directory"):
        read_thresholds(tmp_path)


LEAVES = st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner))
PLACES = [(), ("format",), ("metrics",), ("metrics", "face_similarity")]
PLACES += [("metrics", "face_similarity", key) for key in ("thresholds", "empty_below", "cost", "labels", "weights")]


@pytest.mark.slow
@MAY_STAY
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_anywhere_is_read_or_is_an_error_in_words(tmp_path, place, value):
    root = {"file": content(tmp_path)}
    inner, keys = root, ["file", *place]
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    check_reading(tmp_path, json.dumps(root["file"]).encode())


@MAY_STAY
@given(st.integers(0, 2000), st.binary(max_size=8))
def test_any_bytes_anywhere_are_read_or_are_an_error_in_words(tmp_path, position, change):
    content(tmp_path)
    whole = (tmp_path / "whole.json").read_bytes()
    position %= len(whole)
    check_reading(tmp_path, whole[:position] + change + whole[position + len(change) :])


def check_reading(folder: Path, written: bytes) -> None:
    """Reading gives thresholds that work, or the one error that a user is meant to read."""
    (folder / "fuzzed.json").write_bytes(written)
    try:
        found = read_thresholds(folder / "fuzzed.json")
    except UserError:
        return
    for each in found.values():
        stars = each.stars(np.array([-1e300, 0.0, 1e300, math.nan]))
        assert ((stars[:3] >= 1) & (stars[:3] <= 5)).all()
        assert (np.diff(stars[:3]) >= 0).all()
