"""The command `agree` from files to report and thresholds: on simulated ratings, and on real ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from finetune_monitor.cli import main
from finetune_monitor.metrics.thresholds import read_thresholds
from finetune_monitor.studies.labeling.ratings import Rating, to_csv
from support import needs
from support.places import SHARED
from support.worlds import guesses, truth

REAL = SHARED / "ratings"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Ratings of 120 images by four labelers for two metrics, and scores: one good, one turned round."""
    random, level = np.random.default_rng(0), truth(images=120)
    labels = {metric: [guesses(level, 0.2, random) for _ in range(4)] for metric in ("likeness", "looks")}
    rows = [
        Rating(f"i{i}", f"labeler {e}", metric, int(labels[metric][e][i]))
        for metric in labels
        for e in range(4)
        for i in range(120)
    ]
    (tmp_path / "ratings.csv").write_text(to_csv(rows))
    scores = level + 0.5 * random.normal(size=120)
    lines = [f"i{i},{scores[i]:.4f},{-scores[i]:.4f},person {i % 6}" for i in range(120)]
    (tmp_path / "scores.csv").write_text("image,likeness,looks,person\n" + "\n".join(lines))
    return [str(tmp_path / "ratings.csv"), "--scores", str(tmp_path / "scores.csv")]


@pytest.mark.slow
def test_report_and_thresholds_come_out(files, tmp_path, capsys):
    out = tmp_path / "report"
    assert main(["agree", *files, "--metric", "likeness", "-o", str(out)]) == 0
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.md", "report.json", "thresholds.json"}
    found = read_thresholds(out / "thresholds.json")["likeness"]
    assert found.buckets.thresholds == pytest.approx([1.5, 2.5, 3.5, 4.5], abs=0.35)
    assert (found.labelers, found.images, found.labels, found.method, found.power) == (4, 120, 480, "least_cost", 1)
    assert found.weights is None
    said = capsys.readouterr().out
    assert "likeness: agreement with a held-out labeler" in said
    assert f"monitor.thresholds={out / 'thresholds.json'}" in said
    assert "left out:     nothing" in said
    numbers = json.loads((out / "report.json").read_text())
    assert "NaN" not in (out / "report.json").read_text()
    assert [found["metric"] for found in numbers["metrics"]] == ["likeness"]
    assert numbers["metrics"][0]["unit"] == "person"


@pytest.mark.slow
def test_a_metric_that_gets_no_stars_does_not_keep_the_other_from_them(files, tmp_path, capsys):
    out = tmp_path / "the report"
    assert main(["agree", *files, "-o", str(out)]) == 2
    said, error = capsys.readouterr()
    assert said.count("model, shuffled") == 1  # that of the other
    assert f"finetune-monitor train ... 'monitor.thresholds={out / 'thresholds.json'}'" in said
    assert "looks: no thresholds: scores do not increase with people's ratings (Spearman -0.8" in error
    assert "likeness" not in error
    assert list(read_thresholds(out / "thresholds.json")) == ["likeness"]
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_nothing_is_overwritten_and_nothing_is_left_of_a_failure(files, tmp_path, capsys):
    out = tmp_path / "report"
    assert main(["agree", *files, "-o", str(out), "--metric", "nothing"]) == 2
    assert not out.exists()
    assert main(["agree", *files, "-o", str(out), "--metric", "likeness"]) == 0
    before = (out / "report.html").read_bytes()
    assert main(["agree", *files, "-o", str(out), "--metric", "looks"]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (out / "report.html").read_bytes() == before


@pytest.mark.slow
def test_matched_marginals_give_each_star_as_often_as_people_do(files, tmp_path):
    options = ["--metric", "likeness", "--buckets", "marginals", "--power", "2"]
    assert main(["agree", *files, "-o", str(tmp_path / "report"), *options]) == 0
    found = read_thresholds(tmp_path / "report/thresholds.json")["likeness"]
    assert (found.method, found.power) == ("marginals", 2)
    with (tmp_path / "scores.csv").open() as file:
        scores = np.array([float(row["likeness"]) for row in csv.DictReader(file)])
    with (tmp_path / "ratings.csv").open() as file:
        labels = [int(row["label"]) for row in csv.DictReader(file) if row["metric"] == "likeness"]
    given, starred = (np.bincount(np.asarray(x, dtype=int), minlength=6)[1:] for x in (labels, found.stars(scores)))
    assert starred / 120 == pytest.approx(given / 480, abs=0.01)


@pytest.mark.slow
def test_the_same_ratings_give_the_same_bytes(files, tmp_path):
    for name in ("first", "second"):
        assert main(["agree", *files, "-o", str(tmp_path / name), "--metric", "likeness"]) == 0
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


@pytest.mark.parametrize("option", [["--power", "0"], ["--min-coverage", "2"], ["--buckets", "most"], ["--seed", "-1"]])
def test_options_out_of_range_are_refused(files, tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        main(["agree", *files, "-o", str(tmp_path / "report"), *option])
    assert option[0] in capsys.readouterr().err


@needs.shared("ratings")
@pytest.mark.slow
def test_the_known_figures_of_real_ratings(tmp_path, capsys):
    """Göring et al. 2023: appeal of 146 images, NIMA as the model, the 22 raters who rated nearly all of them."""
    out, command = tmp_path / "report", ["agree", str(REAL / "avt_2022_per_rater.csv"), "--metric", "image_appeal"]
    command += ["--scores", str(REAL / "avt_2022_nima.csv"), "--min-coverage", "0.95", "-o", str(out)]
    command += ["--images", str(REAL / "images")] if (REAL / "images").is_dir() else []
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3 earlier ratings of the same image by the same labeler left out" in said
    assert "Left out for labeling less than 95% of the images: 82, 87, 96, 98, 104." in said
    found = read_thresholds(out / "thresholds.json")["image_appeal"]
    assert (found.labelers, found.images, found.labels) == (22, 146, 3209)
    (study,) = json.loads((out / "report.json").read_text())["metrics"]
    labeler, others = study["mean"]["against_labeler"], study["mean"]["against_others"]
    assert others["people"]["spearman"]["value"] == pytest.approx(0.58, abs=0.005)
    assert labeler["model, naive fold"]["mae"]["value"] == pytest.approx(1.13, abs=0.005)
    assert labeler["constant"]["mae"]["value"] == pytest.approx(1.18, abs=0.005)
    assert labeler["model"]["mae"]["value"] > labeler["model, naive fold"]["mae"]["value"] + 0.03
    assert study["overall"]["spearman"]["value"] == pytest.approx(0.284, abs=0.003)
    assert study["overall"]["spearman"]["low"] < 0.284 < study["overall"]["spearman"]["high"]
