"""The report holds every number, the same in each of its files, and no name can break it."""

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune_monitor.studies.agreement.evaluators import CONSTANT, MODEL, NAIVE, PEOPLE, SHUFFLE
from finetune_monitor.studies.agreement.label_matrix import describe_labelers
from finetune_monitor.studies.agreement.study import ReportSection, study
from finetune_monitor.studies.agreement_report.examples import deviations, disagreements, seat_stars
from finetune_monitor.studies.agreement_report.files import to_json, write_report
from finetune_monitor.studies.agreement_report.tables import (
    alternative_table,
    folds_table,
    grades,
    histograms,
    labelers_table,
    score_table,
    side_by_side,
    thresholds_table,
)
from support.places import ROOT
from support.studies import NAN, found, people, scores, section
from support.worlds import sample, truth

HOSTILE = ("<script>alert(1)</script>", "a|b", "\u202e`rm` *x*", "=1+1", "very_long_name_" * 12, "caf\udce9")
OUTPUTS = ("report.html", "report.md", "report.json", "predictions.csv")


WORLDS = (
    "alike",
    "far better",
    "reversed",
    "flat",
    "no persons",
    "two labelers",
    "nothing scored",
    "one image",
    "many",
)


def numbers(content: Any) -> Iterator[float]:
    """Every number of a JSON document."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from numbers(part)
    elif isinstance(content, float):
        yield content


@pytest.mark.slow
def test_the_table_of_folds_holds_the_study_and_never_g_alone():
    base = found("alike")
    table = folds_table(base)
    first, last = table.rows[0], table.rows[-1]
    seat = base.seats[0]
    names = ("spearman", "kappa", "mae", "exact", "within_one")
    assert first[:2] == ("labeler 0", float(seat.n))
    assert list(first[2:7]) == [seat.against_labeler[MODEL][name] for name in names]
    assert list(first[7:9]) == [seat.against_others[MODEL][name] for name in ("corrected", "raw")]
    assert list(first[9:]) == [seat.against_others[PEOPLE][name] for name in ("corrected", "raw")]
    assert last[0] == "mean"
    assert last[3] == base.mean.against_labeler[MODEL]["kappa"]
    heads = [column.name for column in table.columns]
    assert all(heads[place - 1] == "G*" for place, name in enumerate(heads) if name == "G")


def test_everyone_stands_side_by_side():
    against_labeler, against_others = side_by_side(found("alike"))
    for table in (against_labeler, against_others):
        assert [row[0] for row in table.rows] == [PEOPLE, MODEL, NAIVE, CONSTANT, SHUFFLE]
    assert against_others.rows[3][2].mean == pytest.approx(0, abs=1e-9)  # the constant's G*
    assert against_others.rows[3][3].mean > 0.5  # and its G


@pytest.mark.slow
def test_refused_stars_leave_people_and_correlations():
    base = found("reversed")
    assert [column.name for column in folds_table(base).columns] == ["held out", "labels", "Spearman", "G*", "G"]
    for table in side_by_side(base):
        assert [row[0] for row in table.rows] == [PEOPLE, CONSTANT]
    assert {kind for _, kind, _, _ in grades(base)} == {PEOPLE, CONSTANT}
    assert score_table(base).rows[0][1].mean < -0.5
    assert list(histograms(base)) == ["labels of people"]
    assert list(disagreements(section(base))) == ["People differ most among themselves"]


def test_grades_are_sorted_and_undefined_ones_come_last():
    values = [each[2].mean for each in grades(found("alike"))]
    assert values == sorted(values, reverse=True)
    assert all(math.isnan(each[2].mean) for each in grades(found("two labelers"))[-2:])


def test_every_kind_has_a_color():
    css = (ROOT / "finetune_monitor/studies/agreement_report/page.css").read_text()
    kinds = {kind for _, kind, _, _ in grades(found("alike"))}
    assert len(kinds) == 4
    for start in (".kind-", ".dot."):
        assert [kind for kind in kinds if not re.search(rf"{re.escape(start)}{kind}[ ,]", css)] == []


def test_correlations_within_a_person_are_shown_where_persons_are_known():
    assert len(score_table(found("alike")).rows) == 6
    assert len(score_table(found("no persons")).rows) == 3


def test_the_table_of_thresholds_shows_both_methods_and_people():
    base = found("alike")
    table = thresholds_table(base)
    assert [row[0] for row in table.rows] == ["least cost (chosen)", "people's shares", "labels of people"]
    assert table.marked == 0
    labels = base.sample.labels
    assert table.rows[2][-1] == pytest.approx(
        [np.nanmean(np.where(np.isnan(labels), NAN, labels == k)) for k in range(1, 6)]
    )
    assert table.rows[0][5] <= table.rows[1][5]
    empty = replace(base.buckets["least_cost"], thresholds=np.array([-np.inf, 2.5, 3.5, np.inf]))
    changed = replace(base, buckets={**base.buckets, "least_cost": empty})
    assert thresholds_table(changed).rows[0][1:5] == ("none", "2.5", "3.5", "none")


def test_columns_of_labelers_that_say_nothing_are_left_out():
    base = found("alike")
    labelers = describe_labelers(base.sample.table)
    heads = [column.name for column in labelers_table(labelers, base).columns]
    assert not {"repeats equal", "median s", "remarks"} & set(heads)
    hasty = [replace(labelers[0], hasty=0.5, median_ms=250.0, repeats=4, consistency=0.75), *labelers[1:]]
    table = labelers_table(hasty, base)
    row = dict(zip([column.name for column in table.columns], table.rows[0], strict=True))
    assert (row["repeats equal"], row["median s"], row["remarks"]) == ("75% of 4", 0.25, "hasty")
    assert table.rows[1][-1] == ""


def test_the_alternative_test_stands_beside_the_constants():
    base = found("alike")
    table = alternative_table(base)
    assert table is not None
    assert [row[0] for row in table.rows] == ["model", "constant"]
    assert table.rows[0][1] == base.alternative.advantage
    assert alternative_table(found("two labelers")) is None


def test_disagreements_are_the_largest_and_in_order():
    base = found("alike")
    groups = disagreements(section(base))
    excess = seat_stars(base) - base.mean_labels
    for (_, examples), by in zip(groups.items(), (excess, -excess, deviations(base.sample.table.labels)), strict=True):
        shown = [by[int(example.image)] for example in examples]
        np.testing.assert_allclose(shown, np.sort(by[~np.isnan(by)])[::-1][:6])
    example = next(iter(groups.values()))[0]
    given_labels = [label for label, names in example.labels.items() for _ in names]
    assert np.mean(given_labels) == pytest.approx(example.mean)
    assert list(example.labels) == sorted(example.labels, reverse=True)


def test_deviations_are_the_plain_computation():
    labels = np.array([[1.0, 5, NAN, NAN], [3.0, 5, 2, NAN], [NAN, 2, NAN, NAN]])
    np.testing.assert_allclose(deviations(labels), [1, np.std([5, 5, 2]), NAN, NAN])


@pytest.mark.slow
def test_images_with_one_label_are_no_disagreement():
    labels = people(0.25)
    labels[1:, 0] = NAN
    labels[0, 0] = 6 - truth(images=480)[0]
    base = study(sample(labels, scores(0.0), 6), rounds=50)
    assert all(example.image != "0" for group in disagreements(section(base)).values() for example in group)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_every_world_makes_a_report_without_a_nan(tmp_path, world):
    write_report(tmp_path, [section(found(world))], {"seed": "0"})
    page, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    words = re.sub(r"base64,\S+", "", page)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", words)
    assert not re.search(r"\b(nan|inf|None)\b", markdown)
    assert "-0.00" not in words
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert all(math.isfinite(number) for number in numbers(content))


def test_the_numbers_are_the_studys():
    base = found("alike")
    content = to_json(section(base))
    kappa = base.mean.against_labeler[MODEL]["kappa"]
    assert content["mean"]["against_labeler"][MODEL]["kappa"] == {
        "value": kappa.mean,
        "low": kappa.low,
        "high": kappa.high,
        "n": kappa.n,
        "missing": kappa.missing,
    }
    assert [fold["labeler"] for fold in content["folds"]] == list(base.sample.table.labelers)
    assert content["confusions"][MODEL] == base.confusions[MODEL].tolist()
    assert content["thresholds"]["marginals"]["thresholds"] == base.buckets["marginals"].thresholds.tolist()
    assert content["alternative"]["winning_rates"]["0.1"] == base.alternative.winning_rates[0.1]
    assert content["constant_alternative"]["advantage"] == base.constant_alternative.advantage
    assert content["alpha"]["value"] == base.alpha.mean


def test_predictions_hold_an_image_a_row(tmp_path):
    base = found("alike")
    write_report(tmp_path, [section(base)], {})
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 480
    final, held_out = base.buckets["least_cost"].steps(base.sample.scores), seat_stars(base)
    assert (rows[5]["score"], rows[5]["stars"], rows[5]["held_out_stars"]) == ("", "", "")
    assert rows[7]["label_labeler 1"] == ""
    for place in (0, 8, 479):
        row = rows[place]
        assert (row["metric"], row["image_id"], row["person"]) == ("aesthetic", str(place), base.sample.persons[place])
        assert float(row["stars"]) == final[place]
        assert float(row["score"]) == pytest.approx(base.sample.scores[place], rel=1e-5)
        assert float(row["held_out_stars"]) == pytest.approx(held_out[place], rel=1e-5)
        assert float(row["mean_label"]) == pytest.approx(base.mean_labels[place], rel=1e-5)
        assert float(row["label_labeler 0"]) == base.sample.table.labels[0, place]


def test_the_same_study_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_report(tmp_path / name, [section(found("alike")), section(found("reversed"))], {"seed": "0"})
    for name in OUTPUTS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(OUTPUTS)


def test_no_name_breaks_the_report(tmp_path):
    labels, images = people(0.25, 6, 24), 24
    made = sample(labels, scores(0.25, images), 4, labelers=HOSTILE, metric=HOSTILE[0])
    table = replace(made.table, images=(*HOSTILE, *made.table.images[6:]))
    base = study(replace(made, table=table, persons=tuple(HOSTILE[i % 3] for i in range(images))), rounds=50)
    captions = dict.fromkeys(HOSTILE, "<img src=x onerror=alert(1)>")
    picked = ReportSection(base, describe_labelers(table), [*HOSTILE], None, captions)
    write_report(tmp_path, [picked], {HOSTILE[1]: HOSTILE[2], "path": '"/><b>'})
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"<(script|img src=x|b>)", page)
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    markdown = (tmp_path / "report.md").read_text()
    assert "\\<script\\>" in markdown
    lines = markdown.splitlines()
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", line))


def test_images_are_small_and_inline_and_what_cannot_be_read_is_said(tmp_path):
    base = found("alike")
    shown = [example.image for group in disagreements(section(base)).values() for example in group]
    images = {image: tmp_path / f"{image}.png" for image in shown}
    for path in images.values():
        Image.new("RGB", (900, 600), "teal").save(path)
    images[shown[0]].write_bytes(b"no image")
    images[shown[1]].unlink()
    lost = sum(image in shown[:2] for image in shown)
    write_report(tmp_path / "out", [section(base, images=images, captions={shown[2]: "ana, step 300"})], {})
    page = (tmp_path / "out/report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == len(shown) - lost
    assert page.count("no image") == lost
    assert "ana, step 300" in page
    assert str(tmp_path) not in page
    assert len(page) < 400_000


def test_nothing_is_written_where_the_report_cannot_be_made(tmp_path):
    base = section(found("alike"))
    with pytest.raises(ValueError, match="zip"):
        write_report(tmp_path, [replace(base, labelers=base.labelers[1:])], {})
    assert list(Path(tmp_path).iterdir()) == []
