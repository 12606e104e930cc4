"""A run with stars: in the record and in every view, the same on a resume, and refused where they do not fit."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics.thresholds import Buckets, Thresholds, read_thresholds, write_thresholds
from finetune_monitor.models.dlib_resnet import WEIGHTS as DLIB
from finetune_monitor.record.history import read_run
from finetune_monitor.sinks.console import print_summary
from finetune_monitor.sinks.tensorboard import event_folder
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.places import DEMO

DEMO_AESTHETIC = {"clip": str(DEMO / "clip"), "pretrained": None, "head": str(DEMO / "aesthetic_head.safetensors")}
DEMO_WEIGHTS = {
    "face_similarity": {"recognizer": {"id": "demo", "sha256": sha256(DLIB)}},
    "aesthetic": {
        "clip": {"id": "demo", "sha256": sha256(DEMO / "clip/open_clip_model.safetensors")},
        "head": {"id": "demo", "sha256": sha256(DEMO / "aesthetic_head.safetensors")},
    },
}

FACE, LOOKS = [0.1, 0.3, 0.5, 0.7], [1.0, 1.8, 3.0, float("inf")]


def write_fitted(path: Path, **values: list[float]) -> Path:
    """Thresholds of the demo's metrics; the hashes say so, wherever the files lay when they were fitted."""
    found = [
        Thresholds(name, Buckets(np.array(each), 1.0), "least_cost", 1.0, 5, 64, 320, DEMO_WEIGHTS[name])
        for name, each in values.items()
    ]
    write_thresholds(path, found)
    return path


@pytest.fixture
def starred(write_config, run_folder, tmp_path, monkeypatch) -> tuple[Path, Path, Callable[[], int]]:
    """A run with stars: the folder, the file of thresholds, and what runs it again."""
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    file = write_fitted(tmp_path / "t.json", face_similarity=FACE, aesthetic=LOOKS)
    options = [f"monitor.thresholds={file}", f"monitor.metrics.aesthetic={json.dumps(DEMO_AESTHETIC)}"]
    options += ["monitor.sinks={tensorboard: {}, wandb: {mode: offline}}"]
    options += ["monitor.stopping=[{rule: patience, metric: aesthetic_stars, patience: 9}]"]

    def go() -> int:
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        return run(load_config(write_config(), options))

    assert go() == 0
    return run_folder, file, go


@pytest.mark.slow
def test_thresholds_turn_scores_into_stars_in_the_record_and_every_view(starred, capfd):
    folder, file, _ = starred
    history, [of_run] = read_run(folder), (folder / "wandb").glob("offline-run-*")
    fitted = read_thresholds(file)["aesthetic"]
    for evaluation in history.evaluations:
        stars = [image.scores["aesthetic_stars"] for image in evaluation.images]
        assert stars == [fitted.stars(np.array([image.scores["aesthetic"]]))[0] for image in evaluation.images]
        assert sorted(stars) == [2, 3]
        found = evaluation.scores["aesthetic_stars"]
        assert (found.mean, found.low, found.high, found.n, found.missing) == (2.5, 1.0, 5.0, 2, 0)
        assert evaluation.scores["face_similarity_stars"].missing == 2  # no face, no star
    assert history.run["ended"]["best_metric"] == "aesthetic_stars"
    events = EventAccumulator(str(event_folder(folder))).Reload()
    assert [point.value for point in events.Scalars("aesthetic_stars")] == [2.5] * 3
    for tag, value in (("interval/aesthetic_stars/low", 1), ("interval/aesthetic_stars/high", 5)):
        assert {point.value for point in events.Scalars(tag)} == {value}
    best = EventAccumulator(str(event_folder(folder) / "best")).Reload()
    assert [point.value for point in best.Scalars("aesthetic_stars")] == [2.5]
    [charts] = events.Tensors("custom_scalars__config__")
    assert b"interval/face_similarity_stars/low" in charts.tensor_proto.string_val[0]
    tables = [json.loads(path.read_text()) for path in of_run.glob("files/media/table/*images*.json")]
    assert len(tables) == 1
    assert all({"aesthetic", "aesthetic_stars"} <= set(table["columns"]) for table in tables)
    capfd.readouterr()
    print_summary(history)
    assert "2.50 stars" in capfd.readouterr().out


@pytest.mark.slow
def test_other_thresholds_are_refused_on_resume_and_the_same_are_not(starred):
    folder, file, again = starred
    again()
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    write_fitted(file, face_similarity=FACE, aesthetic=[1.0, 1.7, 3.0, float("inf")])
    with pytest.raises(UserError, match=r"thresholds is \[1.0, 1.8, 3.0, .*, the config says \[1.0, 1.7, 3.0, "):
        again()
    write_fitted(file, aesthetic=LOOKS)
    with pytest.raises(UserError, match=r"face_similarity_stars is \{.*\}, the config says null"):
        again()
    assert {path: path.read_bytes() for path in folder.rglob("*.jsonl")} == before


OTHER = {"recognizer": {"id": "vggface2", "sha256": "cd" * 32}}


def misfit(folder: Path, **changes: object) -> Path:
    """A file with thresholds of face similarity, changed."""
    path = write_fitted(folder / "misfit.json", face_similarity=FACE)
    content = json.loads(path.read_text())
    content["metrics"]["face_similarity"] |= changes
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nowhere.json", "nowhere.json: No such file"),
        (lambda folder: misfit(folder, thresholds=[3]), r"misfit.json: damaged.*face_similarity.thresholds: found \[3"),
        (
            lambda folder: misfit(folder, weights=OTHER),
            r"misfit.json: .*fitted on .*cdcd.*these are .*dlib",
        ),
        (
            lambda folder: write_fitted(folder / "t.json", aesthetic=LOOKS),
            "t.json has thresholds for aesthetic, but the run measures face_similarity",
        ),
    ],
    ids=["missing", "damaged", "other weights", "other metric"],
)
def test_thresholds_that_do_not_fit_are_named_beside_everything_else(write_config, tmp_path, make, said):
    overrides = [f"monitor.thresholds={make(tmp_path)}", f"model={tmp_path / 'no-model'}"]
    with pytest.raises(UserError, match=r"no-model") as caught:
        run(load_config(write_config(), overrides))
    assert re.search(said, str(caught.value), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fitted", "said"), [({"face_similarity": FACE}, 1), ({"face_similarity": FACE, "aesthetic": LOOKS}, 0)]
)
def test_a_metric_that_gets_no_stars_is_named(write_config, tmp_path, caplog, fitted, said):
    file = write_fitted(tmp_path / "t.json", **fitted)
    overrides = [f"monitor.thresholds={file}", f"monitor.metrics.aesthetic={json.dumps(DEMO_AESTHETIC)}"]
    with pytest.raises(UserError, match="no-model"):
        run(load_config(write_config(), [*overrides, f"model={tmp_path / 'no-model'}"]))
    lines = [record.message for record in caplog.records if "no stars" in record.message]
    assert lines == [f"{file}: has no thresholds for aesthetic, which get no stars"] * said


def test_a_rule_that_watches_stars_without_thresholds_is_refused(write_config, tmp_path):
    file = write_fitted(tmp_path / "t.json", face_similarity=FACE)
    overrides = [f"monitor.thresholds={file}", f"monitor.metrics.aesthetic={json.dumps(DEMO_AESTHETIC)}"]
    with pytest.raises(UserError, match=r"stars of aesthetic, but .*t.json has thresholds for face_similarity"):
        run(load_config(write_config(), [*overrides, "monitor.stopping=[{metric: aesthetic_stars}]"]))
