"""The report's numbers are the plain computation's, and no name can break its page."""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from finetune_monitor.studies.aesthetic_head.report import Predictions, escaped, measure, write_report

NAN = float("nan")
HOSTILE = ("a|b.jpg", "`rm`.jpg", 'new\nline, "quoted".jpg', "<b>&amp;.jpg", "caf\udce9.jpg")


def drawn(n: int = 120) -> Predictions:
    """Ratings of 0 to 10, a wide and a narrow predictor of them, and the mean."""
    rng = np.random.default_rng(0)
    ratings = np.clip(rng.normal(5.4, 1.2, n), 0, 10)
    narrow = 5.4 + 0.4 * (ratings - 5.4) + rng.normal(0, 0.3, n)
    wide = 5.4 + 2.4 * (narrow - 5.4)
    scores = {"balanced": wide, "constant": np.full(n, 5.4), "unbalanced": narrow}
    return Predictions(tuple(f"{index}.jpg" for index in range(n)), ratings, scores, (0.0, 10.0))


def small(ratings: list[float], scale: tuple[float, float] = (1.0, 5.0), **scores: list[float]) -> Predictions:
    columns = {name: np.array(column, dtype=float) for name, column in scores.items()}
    return Predictions(tuple(HOSTILE[: len(ratings)]), np.array(ratings, dtype=float), columns, scale)


def section(page: str, heading: str) -> str:
    return page.split(f"## {heading}\n")[1].split("\n## ")[0]


def numbers(found: Any) -> Iterator[float]:
    """Every number of a JSON document."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for part in found:
            yield from numbers(part)
    elif isinstance(found, float):
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    facts = {"CLIP": "ViT-L-14", "data|set": "two\nlines `of` <text>"}
    write_report(folder, "A *fine* head", drawn(), measure(drawn()), facts, None, ["skipped `a|b`.jpg"])
    return folder


def test_agreement_is_the_plain_computation():
    predictions = drawn()
    ratings = predictions.ratings
    for name, found in measure(predictions).overall.items():
        scores = predictions.scores[name]
        low, high = np.percentile(ratings, [5, 95])
        assert found.mae.mean == pytest.approx(np.mean(np.abs(scores - ratings)))
        assert found.outer.mean == pytest.approx(np.mean((scores < low) | (scores > high)))
        if name != "constant":
            assert found.srcc.mean == pytest.approx(stats.spearmanr(scores, ratings).statistic)
            assert found.plcc.mean == pytest.approx(stats.pearsonr(scores, ratings).statistic)
            assert all(e.low < e.mean < e.high for e in (found.srcc, found.plcc, found.mae))


def test_bins_are_the_plain_computation():
    predictions = drawn()
    ratings, head = predictions.ratings, predictions.scores["balanced"]
    measured = measure(predictions)
    for name, bins in measured.error_by_rating.items():
        for b in bins:
            inside = (ratings >= b.low) & (ratings < b.high)
            assert b.high - b.low == pytest.approx(0.5)
            assert b.n == inside.sum()
            assert b.estimate.mean == pytest.approx(np.abs(predictions.scores[name] - ratings)[inside].mean())
    for error, rating in zip(measured.error_by_score, measured.rating_by_score["balanced"], strict=True):
        inside = (head >= error.low) & (head < error.high)
        assert error.n == rating.n == inside.sum()
        assert error.estimate.mean == pytest.approx(np.abs(head - ratings)[inside].mean())
        assert rating.estimate.mean == pytest.approx(ratings[inside].mean())


def test_the_head_is_compared_with_the_next_predictor_that_is_no_constant():
    predictions = drawn()
    measured = measure(predictions)
    assert predictions.compared == ("balanced", "unbalanced")
    assert measured.difference is not None
    overall = measured.overall
    assert measured.difference.mean == pytest.approx(overall["balanced"].mae.mean - overall["unbalanced"].mae.mean)
    columns = (measured.difference_by_rating, *(measured.error_by_rating[name] for name in predictions.compared))
    for difference, first, second in zip(*columns, strict=True):
        assert difference.estimate.mean == pytest.approx(first.estimate.mean - second.estimate.mean)


def test_a_rating_that_is_a_decimal_edge_is_in_the_bin_above():
    labeled = small([1.2, 1.4, 1.6, 3.6, 5.0], head=[1, 2, 3, 4, 5])
    assert [b.low for b in measure(labeled).error_by_rating["head"]] == [1.2, 1.4, 1.6, 3.6, 4.8]


@pytest.mark.slow
def test_the_page_has_every_number_with_its_interval_and_count(written):
    page = (written / "report.md").read_text()
    agreement = measure(drawn()).overall["balanced"]
    row = next(line for line in section(page, "Agreement").splitlines() if line.startswith("| balanced"))
    for e in (agreement.srcc, agreement.plcc, agreement.mae):
        assert f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]" in row
    assert row.endswith("| 120 |")
    assert "| constant | — | — |" in page
    assert "2601.09896" in section(page, "Notes")
    counts = re.findall(r"^\| (?:\d|under)[^|]*\| (\d+) \|", section(page, "Error by rating"), re.MULTILINE)
    assert sum(map(int, counts)) == 120


def test_the_figures_are_beside_the_page_and_in_it(written):
    page = (written / "report.md").read_text()
    names = re.findall(r"!\[\w+\]\((\S+)\)", page)
    assert names == ["calibration.png", "histograms.png", "errors.png"]
    assert {path.name for path in written.iterdir()} == {*names, "report.md", "report.json", "predictions.csv"}


def test_facts_and_notes_cannot_break_the_page(written):
    page = (written / "report.md").read_text()
    assert page.startswith("# A \\*fine\\* head\n")
    assert "| data\\|set | two lines \\`of\\` \\<text\\> |" in page
    assert "- skipped \\`a\\|b\\`.jpg\n" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("`x`", r"\`x\`"),
        ("one\n\n# two", r"one \# two"),
        ("[x](y) ![z]", r"\[x\](y) !\[z\]"),
        ("\\|", r"\\\|"),
        ("$x$ *y* _z_ ~w~ &lt;", r"\$x\$ \*y\* \_z\_ \~w\~ \&lt;"),
        ("abc\u202egpj.\x1b[31m", "abc\ufffdgpj.\ufffd\\[31m"),
        ("Köln 4.5-5, café", "Köln 4.5-5, café"),
    ],
)
def test_markdown_is_escaped(text, expected):
    assert escaped(text) == expected


def test_the_json_has_the_same_numbers(written):
    found = json.loads((written / "report.json").read_text(), parse_constant=pytest.fail)
    measured = measure(drawn())
    assert found["facts"]["data|set"] == "two\nlines `of` <text>"
    assert found["predictors"]["constant"]["srcc"] == {"value": None, "low": None, "high": None, "n": 120, "missing": 0}
    assert found["predictors"]["balanced"]["mae"]["value"] == measured.overall["balanced"].mae.mean
    assert found["error_difference"]["between"] == ["balanced", "unbalanced"]
    assert found["outer"]["low"] == measured.outer[0]
    rows = found["error_by_rating"]["unbalanced"]
    assert [(row["low"], row["high"], row["n"], row["mean"]["value"]) for row in rows] == [
        (b.low, b.high, b.n, b.estimate.mean) for b in measured.error_by_rating["unbalanced"]
    ]


@pytest.mark.slow
def test_the_csv_reads_back(tmp_path):
    predictions = small([1, 2, 3, 4, 4.56789], head=[1.5, NAN, 3, 4, 5], other=[1, 2, 3, 4, 5])
    write_report(tmp_path, "t", predictions, measure(predictions), {}, None)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "rating", "head", "other"]
    assert [row[0] for row in rows[:4]] == list(HOSTILE[:4])
    assert rows[4] == ["caf\\udce9.jpg", "4.5679", "5.0000", "5.0000"]
    assert rows[1] == ["`rm`.jpg", "2.0000", "", "2.0000"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "predictions",
    [
        small([3], head=[2]),
        small([3, 4], head=[2, 4.5]),
        small([1, 3, 5], head=[2, 3, 4], constant=[3, 3, 3]),
        small([3, 3, 3], head=[2, 3, 4], constant=[3, 3, 3]),
        small([1, 3, 5], head=[3, 3, 3]),
        small([1, 3, 5], head=[NAN, NAN, NAN], other=[NAN, 2, 3]),
        small([1, 3, 5, 5], head=[-4, 3, 30, NAN], other=[1, 2, 3, 4]),
    ],
    ids=["one", "two", "three", "equal ratings", "constant head", "no scores", "beyond the scale"],
)
def test_small_samples_make_a_report(tmp_path, predictions):
    write_report(tmp_path, "small", predictions, measure(predictions), {"CLIP": "tiny"}, None)
    page = (tmp_path / "report.md").read_text()
    assert "nan" not in page.lower()
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert all(math.isfinite(number) for number in numbers(found))
    assert found["images"] == len(predictions.names)


@pytest.mark.slow
def test_missing_scores_are_counted_and_outermost_bins_are_open(tmp_path):
    predictions = small([1, 3, 5, 5], head=[-4, 3, 30, NAN])
    write_report(tmp_path, "t", predictions, measure(predictions), {}, None)
    page = (tmp_path / "report.md").read_text()
    assert "| 3 (1 missing) |" in page
    rows = section(page, "What a score means").splitlines()
    assert any(row.startswith("| under 1.2 | 1 | 1.000 | 5.000 |") for row in rows)
    assert any(row.startswith("| 4.8 or more | 1 | 5.000 | 25.000 |") for row in rows)


@pytest.mark.slow
def test_images_become_a_contact_sheet(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths[:2]:
        Image.new("RGB", (30, 20), "red").save(path)
    predictions = small([1, 3, 5], head=[2, 3, 4])
    write_report(tmp_path / "out", "t", predictions, measure(predictions), {}, paths)
    page = (tmp_path / "out/report.md").read_text()
    assert "![examples](examples.png)" in page
    assert (tmp_path / "out/examples.png").is_file()


def test_an_image_for_each_name_is_expected(tmp_path):
    predictions = small([1, 3], head=[2, 3])
    with pytest.raises(ValueError, match="expected 2 images, found 1"):
        write_report(tmp_path, "t", predictions, measure(predictions), {}, [Path("a.png")])


@pytest.mark.parametrize(
    ("names", "ratings", "scores"),
    [
        ((), [], {"head": []}),
        (("a",), [1.0], {}),
        (("a", "b"), [1.0], {"head": [1.0]}),
        (("a",), [NAN], {"head": [1.0]}),
        (("a",), [1.0], {"head": [math.inf]}),
    ],
)
def test_predictions_that_are_none_are_refused(names, ratings, scores):
    with pytest.raises(ValueError, match=r"expected as many names|missing, or a number is infinite"):
        Predictions(names, np.array(ratings), {name: np.array(column) for name, column in scores.items()}, (0.0, 10.0))
