"""Accelerate's other trackers: named in a config, made with its options, and one of them, ClearML, in a real run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import accelerate.tracking
import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.history import read_run
from finetune_monitor.sinks import Tracked
from finetune_monitor.sinks.accelerate import start_sinks
from finetune_monitor.sinks.trackers import TRACKERS, AccelerateTracker
from finetune_monitor.training.config import load_config
from support import needs, preloaded
from support.places import ROOT

NOTEBOOK = """
from accelerate.tracking import GeneralTracker


class Notebook(GeneralTracker):
    name, requires_logging_directory = "notebook", False

    def __init__(self, file: str):
        super().__init__()
        self.file = open(file, "w")

    @property
    def tracker(self):
        return self.file

    def store_init_configuration(self, values):
        print("rank", values["train.rank"], file=self.file)

    def log(self, values, step=None, **arguments):
        print(step, *sorted(values), file=self.file)

    def finish(self):
        self.file.close()
"""
"""A tracker as a user writes one for Accelerate."""

QUICK = "auto_connect_frameworks: false, auto_resource_monitoring: false"
"""What ClearML otherwise watches."""


def test_the_names_are_those_of_accelerate():
    known = LOGGER_TYPE_TO_CLASS.keys() - {"tensorboard", "wandb"}
    assert known <= set(TRACKERS)
    assert set(TRACKERS) - known <= {"swanlab", "trackio"}  # newer than the oldest Accelerate


starts_later = pytest.mark.skipif(
    not hasattr(GeneralTracker, "start"),
    reason="needs an Accelerate whose trackers start after they are made",
)


@starts_later
@pytest.mark.parametrize(
    ("name", "options", "attribute", "expected"),
    [
        ("mlflow", {}, "experiment_name", "finetune-monitor"),
        ("mlflow", {"project": "mine"}, "experiment_name", "mine"),
        ("mlflow", {"experiment_name": "mine"}, "experiment_name", "mine"),
        ("mlflow", {"tags": {"a": "b"}}, "tags", {"a": "b"}),
        ("comet_ml", {"online": False}, "init_kwargs", {"online": False}),
        ("dvclive", {"dir": "live"}, "init_kwargs", {"dir": "live"}),
        ("clearml", {"project": "mine"}, "user_provided_run_name", "mine"),
    ],
)
def test_the_options_are_those_of_the_tracker(tmp_path, name, options, attribute, expected):
    kind = AccelerateTracker(name)
    assert isinstance(kind, Tracked)
    assert getattr(kind.tracker(tmp_path, options, None), attribute) == expected


@starts_later
def test_a_tracker_that_needs_a_folder_gets_that_of_the_run(tmp_path):
    assert AccelerateTracker("aim").tracker(tmp_path, {}, None).aim_repo_path == str(tmp_path)
    assert AccelerateTracker("aim").tracker(tmp_path, {"logging_dir": "x"}, None).aim_repo_path == "x"


def test_a_wrong_option_turns_the_tracker_off(tmp_path, caplog):
    assert start_sinks(Accelerator(cpu=True), tmp_path, {AccelerateTracker("mlflow"): {"tag": 1}}) == []
    assert "sink mlflow cannot start" in caplog.text
    assert "'tag'" in caplog.text


def test_a_missing_package_and_an_old_accelerate_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    with pytest.raises(UserError, match=r"^sink comet_ml: needs the package comet_ml; pip install comet_ml, or remove"):
        AccelerateTracker("comet_ml").check()
    monkeypatch.setitem(sys.modules, "trackio", sys)
    monkeypatch.delitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "trackio", raising=False)
    with pytest.raises(UserError, match=r"sink trackio: found Accelerate .* pip install --upgrade accelerate"):
        AccelerateTracker("trackio").check()


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ("{comet: {}}", r"sinks.comet: unknown key \(did you mean comet_ml\?\)"),
        ("{neptune: {}}", "known here: tensorboard, wandb, report, aim, clearml, comet_ml, dvclive, mlflow"),
        ("{mlflow: yes}", "sinks.mlflow: found True"),
    ],
)
def test_an_unknown_tracker_is_told_the_known_ones(write_config, sinks, message):
    with pytest.raises(UserError, match=message):
        load_config(write_config(), [f"monitor.sinks={sinks}"])


def test_the_options_are_recorded_as_written(write_config):
    config = load_config(write_config(), ["monitor.sinks={mlflow: {tags: {who: me}, api_key: x}, aim: null}"])
    assert config.model_dump(mode="json")["monitor"]["sinks"]["mlflow"] == {"tags": {"who": "me"}, "api_key": "x"}
    assert list(config.monitor.sinks.chosen) == ["mlflow"]


@needs.clearml
@pytest.mark.slow
def test_a_run_with_clearml_and_a_tracker_of_the_users_own(write_config, tmp_path):
    (tmp_path / "my_trackers.py").write_text(NOTEBOOK)
    (tmp_path / "clearml.conf").write_text("sdk { development { report_use_subprocess: false } }")  # a fork can hang
    own = f"notebook: {{class: my_trackers:Notebook, file: {tmp_path / 'notes.txt'}}}"
    sinks = f"monitor.sinks={{clearml: {{project: faces, task_name: first, {QUICK}}}, {own}}}"
    command = [str(ROOT / "train.py"), "--config", str(write_config()), sinks, "train.max_steps=3"]
    environment = {**os.environ, "HOME": str(tmp_path), "CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [preloaded.python(), *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [evaluation.step for evaluation in read_run(tmp_path / "run").evaluations]

    [session] = (tmp_path / "offline").glob("offline-*/")
    task = json.loads((session / "task.json").read_text())
    assert (task["name"], task["project_name"]) == ("first", "faces")
    assert sorted(logged(session, "faces_found")) == steps
    assert logged(session, "train")  # the losses of training
    assert list(session.rglob("grid*.jpeg"))

    notes = [line.split() for line in (tmp_path / "notes.txt").read_text().splitlines()]
    assert notes[0] == ["rank", "2"]
    assert [int(step) for step, *names in notes[1:] if "faces_found" in names] == steps


def logged(session: Path, title: str) -> list[int]:
    """The steps of a curve in ClearML's own file."""
    found = [json.loads(line) for line in (session / "metrics.jsonl").read_text().splitlines()]
    points = [each for entry in found for each in (entry if isinstance(entry, list) else [entry])]
    return [point["iter"] for point in points if title in (point.get("metric"), point.get("variant"))]
