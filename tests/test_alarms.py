"""The alarms over a training of the demo's model without prior preservation, long enough for something to go wrong."""

from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from benchmarks.alarms import CONFIG, Run, gray, prepare
from finetune_monitor.base.images import list_images, read_images
from finetune_monitor.metrics.copying import Copying
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.places import ROOT

pytestmark = pytest.mark.slow

STEPS = 140

CHEAPER = [
    "data.class_count=8",
    "monitor.grid.images_per_prompt=8",
    "monitor.grid.images_per_probe=4",
    "monitor.grid.steps=8",
]
"""Fewer images and fewer scheduler steps than the benchmark's."""

FASTER = "train.learning_rate=1.5e-3"
"""All alarms of the last evaluation sound with this and the seeds 0, 1, and 2."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("alarms")
    prepare(found, *CHEAPER)
    return found


@pytest.fixture(scope="module")
def history(folder) -> RunHistory:
    AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
    training = Run("off", 0, folder / "off")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        shorter = [f"train.max_steps={STEPS}", f"monitor.every={STEPS // 2}", FASTER, *CHEAPER]
        assert run(load_config(CONFIG, [*training.overrides, *shorter])) == 0
    return read_run(training.folder)


def test_no_alarm_sounds_at_the_base_model(history):
    assert history.evaluations[0].alarms == ()


def test_other_people_become_the_subject(history):
    last = history.evaluations[-1]
    assert "leakage" in last.alarms
    assert last.scores["leakage"].mean > 0.85
    assert last.scores["probe_diversity"].high < 0.9
    assert last.scores["recognized"].mean > 0.5


def test_images_copy_photos_and_those_of_other_people_do_not(history, folder):
    first, *_, last = history.evaluations
    assert first.scores["copying"].mean == 0
    assert "copying" in last.alarms
    assert last.scores["copying"].mean >= 0.5
    photos = ROOT / "assets/demo/photos/astronaut"
    strangers = read_images(list_images(folder / "class-images"))
    assert not Copying(photos).score(strangers, [])["copying"].any()


def test_a_prompt_is_ignored(history):
    first, *_, last = history.evaluations
    assert "worst_prompt_margin" in last.alarms
    assert last.scores["worst_prompt_margin"].mean < -0.05
    assert gray(history, first) >= 0.4 > 0.1 >= gray(history, last)


def test_photos_that_were_never_seen_are_denoised_worse_and_worse(history):
    first, middle, last = history.evaluations
    assert "validation_rise" in middle.alarms
    assert first.scores["validation_loss"].mean < middle.scores["validation_loss"].mean
    assert last.scores["validation_rise"].low > middle.scores["validation_rise"].mean
