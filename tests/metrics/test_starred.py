"""Stars beside scores: those that the thresholds imply, of the right metric and weights, and nothing else changed."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import finetune_monitor
from finetune_monitor import FinetuneMonitor, Patience, PromptGrid, Starred, TensorBoardSink, read_thresholds
from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Described, Description, Metric, describe
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.metrics.thresholds import Buckets, Thresholds, weights_of, write_thresholds
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.history import read_run
from finetune_monitor.stats.estimate import Estimate, plain

CELLS = PromptGrid(["a photo"], [0, 1, 2]).cells
GRAYS = [Image.new("RGB", (8, 8), (gray, gray, gray)) for gray in (200, 40, 0)]
WEIGHTS = {"lamp": {"id": "a lamp", "sha256": "ab" * 32}}


class Brightness:
    """Mean gray, NaN for black; with weights, side columns and a ceiling of its own."""

    name = "brightness"
    higher_is_better = True
    bounds = (0.0, 255.0)

    def score(self, images, cells) -> dict[str, np.ndarray]:
        gray = np.array([np.asarray(image).mean() for image in images], dtype=np.float64)
        return {self.name: np.where(gray > 0, gray, math.nan), "lit": (gray > 0).astype(np.float64)}

    def describe(self) -> Description:
        weights = {**WEIGHTS, "references": ("a.png",)}
        return Description(weights=weights, ceilings={self.name: Estimate(250.0, 240.0, 255.0, 3, 0)}, notice="a toy")


class Bare:
    """No more than the contract asks for."""

    name = "bare"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def score(self, images, cells) -> dict[str, np.ndarray]:
        return {self.name: np.full(len(images), 0.5)}


def thresholds(values=(50.0, 100.0, 150.0, 190.0), metric: str = "brightness", weights=WEIGHTS) -> Thresholds:
    return Thresholds(metric, Buckets(np.array(values), 1.0), "least_cost", 1.0, 5, 64, 320, weights)


def test_stars_stand_beside_the_scores_and_are_missing_where_these_are():
    found = Starred(Brightness(), thresholds()).score(GRAYS, CELLS)
    assert list(found) == ["brightness", "lit", "brightness_stars"]
    assert np.array_equal(found["brightness"], [200, 40, math.nan], equal_nan=True)
    assert np.array_equal(found["brightness_stars"], [5, 1, math.nan], equal_nan=True)
    assert found["lit"].tolist() == [1, 1, 0]


def test_it_is_the_wrapped_metric_but_for_its_stars():
    metric = Starred(Brightness(), thresholds((-math.inf, 100.0, 150.5, math.inf)))
    assert all(isinstance(metric, protocol) for protocol in (Metric, Described))
    assert (metric.name, metric.higher_is_better, metric.bounds) == ("brightness", True, (0.0, 255.0))
    said, bare = describe(metric), describe(Brightness())
    assert bare.columns == {"brightness": ScoreColumn(True, (0.0, 255.0), metric="brightness")}
    assert said.columns == {
        "brightness": ScoreColumn(True, (0.0, 255.0), metric="brightness", ignores=("thresholds",)),
        "brightness_stars": ScoreColumn(True, (1.0, 5.0), "stars", of="brightness", metric="brightness"),
    }
    assert (said.ceilings, said.notice) == (bare.ceilings, bare.notice)
    assert said.weights == {**bare.weights, "thresholds": ["-inf", 100.0, 150.5, "inf"]}
    assert weights_of(said.weights) == weights_of(bare.weights)
    assert plain(said.weights) == json.loads(json.dumps(plain(said.weights), allow_nan=False))


def test_a_metric_that_describes_nothing_has_stars_with_a_notice(caplog):
    metric = Starred(Bare(), thresholds((0.1, 0.2, 0.6, 0.7), "bare", None))
    assert metric.score(GRAYS, CELLS)["bare_stars"].tolist() == [3, 3, 3]
    assert metric.describe().ceilings == {}
    notice = "bare_stars: it is unknown which weights the thresholds were fitted on"
    assert metric.describe().weights == {"thresholds": [0.1, 0.2, 0.6, 0.7]}
    assert metric.describe().notice == notice
    assert notice in caplog.text
    assert Starred(Brightness(), thresholds(weights=None)).describe().notice.startswith("a toy; brightness_stars: ")


def test_the_same_weights_may_lie_elsewhere():
    Starred(Brightness(), thresholds(weights={"lamp": {"id": "/other/place", "sha256": "ab" * 32}}))


class Darkness(Brightness):
    higher_is_better = False


@pytest.mark.parametrize(
    ("metric", "changes", "said"),
    [
        (Brightness(), {"metric": "aesthetic"}, "brightness: found thresholds for aesthetic; use those for brightness"),
        (Darkness(), {}, "brightness: lower is better"),
        (Brightness(), {"weights": {"lamp": {"id": "a lamp", "sha256": "cd" * 32}}}, r"with \{.*cdcd.*\}.*\{.*abab"),
        (
            Brightness(),
            {"weights": {**WEIGHTS, "lens": 3}},
            r'with \{"lens": 3\}, but these are scores with \{"lens": null\}',
        ),
        (Brightness(), {"weights": {}}, r'with \{"lamp": null\}, but these are scores with \{"lamp"'),
        (Bare(), {"metric": "bare"}, "fit thresholds to the new scores"),
    ],
)
def test_thresholds_of_something_else_are_refused(metric, changes, said):
    with pytest.raises(UserError, match=said):
        Starred(metric, thresholds(**changes))


def test_a_loop_of_ones_own_records_shows_and_stops_by_stars(pipeline, run_folder, capsys):
    def make(fitted: Thresholds, **arguments) -> FinetuneMonitor:
        grid = PromptGrid(["a photo of sks person"], [0, 1, 2], steps=2)
        return FinetuneMonitor(
            pipeline, grid, [Starred(Brightness(), fitted)], run_folder, every=1, **arguments
        ).start()

    rule = Patience("brightness_stars", patience=1)
    monitor = make(thresholds(), sinks=[TensorBoardSink()], stopping=rule)
    assert monitor.on_step_end(1)
    assert monitor.close().best_metric == "brightness_stars"
    history = read_run(run_folder)
    assert history.run["metrics"]["brightness_stars"] == {"higher_is_better": True, "bounds": [1.0, 5.0]}
    assert history.run["weights"]["brightness"]["thresholds"] == [50.0, 100.0, 150.0, 190.0]
    for evaluation in history.evaluations:
        scores = np.array([image.scores["brightness"] for image in evaluation.images])
        stars = [image.scores["brightness_stars"] for image in evaluation.images]
        assert stars == thresholds().stars(scores).tolist()
        assert evaluation.scores["brightness_stars"].mean == np.mean(stars)
    printed = capsys.readouterr().out
    assert f"= {np.mean(stars):.2f} stars" in printed
    with pytest.raises(UserError, match=r"thresholds is \[50.0, 100.0, 150.0, 190.0\], the config says \[50.0, 1"):
        make(thresholds((50.0, 100.0, 150.0, 191.0)), resume_step=1)
    make(thresholds(), resume_step=1).close()


def test_stars_of_a_metric_that_fails_are_missing_too(pipeline, run_folder, caplog):
    class Broken(Brightness):
        def score(self, images, cells):
            raise ValueError("no such thing")

    grid = PromptGrid(["a cat"], [0, 1], steps=2)
    FinetuneMonitor(pipeline, grid, [Starred(Broken(), thresholds())], run_folder).start().close()
    found = read_run(run_folder).evaluations[0].scores
    assert {name: (estimate.n, estimate.missing) for name, estimate in found.items()} == {
        "brightness": (0, 2),
        "brightness_stars": (0, 2),
    }


def test_a_name_that_is_the_stars_of_another_is_refused(pipeline, run_folder):
    class Other(Bare):
        name = "brightness_stars"

    with pytest.raises(ValueError, match="brightness and brightness_stars both have a column brightness_stars"):
        FinetuneMonitor(pipeline, PromptGrid(["a"]), [Starred(Brightness(), thresholds()), Other()], run_folder)


def test_thresholds_from_a_file_fit_the_real_metric_they_were_fitted_to(photos, tmp_path):
    metric = FaceSimilarity(photos, "dlib")
    fitted = thresholds((0.1, 0.3, 0.5, 0.7), metric.name, weights_of(metric.describe().weights))
    write_thresholds(tmp_path / "thresholds.json", [fitted])
    starred = finetune_monitor.Starred(metric, read_thresholds(str(tmp_path / "thresholds.json"))["face_similarity"])
    images = [Image.open(path).convert("RGB") for path in sorted(photos.iterdir())]
    found = starred.score([*images, Image.new("RGB", (64, 64), "gray")], CELLS)
    assert np.array_equal(found["face_similarity_stars"], fitted.stars(found["face_similarity"]), equal_nan=True)
    assert math.isnan(found["face_similarity_stars"][-1])
    assert set(found["face_similarity_stars"][:3]) <= {4.0, 5.0}
    assert starred.describe().ceilings == metric.describe().ceilings
