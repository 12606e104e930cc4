"""The page as a sink: written after each evaluation, finished at the end, and no danger to a training."""

import fcntl
import json
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.record.evaluation import RunSummary, StopReason
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report.page import write_page
from finetune_monitor.report.sink import ReportPage
from finetune_monitor.sinks import Sink
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.runs import GRID, RUN, evaluation, images, run_info


class Brightness:
    name = "brightness"
    higher_is_better = True
    bounds = (0.0, 255.0)

    def score(self, images: Sequence[Image.Image], cells) -> dict[str, np.ndarray]:
        return {self.name: np.array([np.asarray(image).mean() for image in images], dtype=np.float64)}


def shown(run_dir: Path) -> dict[str, Any]:
    """The one run of the page, as its manifest has it."""
    text = (run_dir / "page/data/runs.js").read_text()
    [found] = json.loads(text[len("finetuneMonitor.manifest(") : -len(");\n")])["runs"]
    return found


@pytest.fixture
def record(tmp_path):
    found = RunRecord(tmp_path / "run", GRID)
    found.begin(RUN, None, None)
    yield found
    found.close()


def add(record: RunRecord, step: int) -> None:
    record.write_images(step, images())
    record.append(evaluation(step))


def test_it_is_a_sink():
    assert isinstance(ReportPage(), Sink)


def test_the_page_grows_with_a_loop_of_ones_own_and_says_how_it_ended(pipeline, run_folder):
    grid = PromptGrid(["a photo of sks person"], [0, 1], steps=2)
    monitor = FinetuneMonitor(pipeline, grid, [Brightness()], run_folder, [ReportPage()], every=2).start()
    assert (shown(run_folder)["steps"], shown(run_folder)["state"]) == ([0], "running")
    monitor.on_step_end(2)
    assert shown(run_folder)["steps"] == [0, 2]
    monitor.close(StopReason.MAX_STEPS)
    found = shown(run_folder)
    assert (found["state"], found["reason"], found["problems"]) == ("ended", "max_steps", [])
    thumbnail = run_folder / "page/thumbnails" / found["id"] / "step-000002/p00-s1.webp"
    with Image.open(thumbnail) as image, Image.open(run_folder / "images/step-000002/p00-s1.png") as rendered:
        assert image.size == rendered.size


@pytest.mark.slow
def test_the_config_turns_it_on(write_config, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    config = load_config(write_config(), ["monitor.sinks.report={}", "train.max_steps=3"])
    assert run(config) == 0
    found = shown(config.output_dir)
    assert (found["steps"], found["reason"]) == ([0, 3], "max_steps")
    assert [photo["kind"] for photo in found["references"]] == ["used"] * 3
    assert all((config.output_dir / "page" / photo["thumbnail"]).is_file() for photo in found["references"])


def test_a_page_that_another_one_writes_now_is_written_later(record, caplog):
    sink = ReportPage()
    sink.start(run_info(record.output_dir))
    add(record, 0)
    with (record.output_dir / "page/.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sink.write(evaluation(0), images())
    assert "cannot write the page (another process is writing it); the next evaluation tries again" in caplog.text
    assert shown(record.output_dir)["steps"] == []
    add(record, 50)
    sink.write(evaluation(50), images())
    assert shown(record.output_dir)["steps"] == [0, 50]


def test_a_full_disk_is_a_warning_and_leaves_the_old_page(record, caplog):
    sink = ReportPage()
    sink.start(run_info(record.output_dir))
    add(record, 0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
        sink.write(evaluation(0), images())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)
    assert "cannot write the page (File too large)" in caplog.text
    assert shown(record.output_dir)["steps"] == []
    sink.close(RunSummary((), "face_similarity", None, None))
    assert shown(record.output_dir)["steps"] == [0]
    assert not [name for _, _, names in os.walk(record.output_dir / "page") for name in names if "staging" in name]


def test_a_folder_of_that_name_that_is_no_page_does_not_end_a_training(pipeline, run_folder, caplog):
    (run_folder / "page").mkdir(parents=True)
    (run_folder / "page" / "thesis.txt").write_text("mine")
    grid = PromptGrid(["a cat"], [0], steps=2)
    monitor = FinetuneMonitor(pipeline, grid, [Brightness()], run_folder, [ReportPage()], every=2).start()
    monitor.on_step_end(2)
    monitor.close()
    assert caplog.text.count("sink report failed and is turned off") == 1
    assert os.listdir(run_folder / "page") == ["thesis.txt"]


def test_images_are_not_read_again_and_look_the_same(record, monkeypatch):
    sink, run_dir = ReportPage(), record.output_dir
    sink.start(run_info(run_dir))
    with monkeypatch.context() as patched:
        patched.setattr("finetune_monitor.report.thumbnails.read_image", lambda path: pytest.fail(f"reads {path}"))
        add(record, 0)
        sink.write(evaluation(0), images())
    thumbnails = sorted((run_dir / "page/thumbnails").rglob("*.webp"))
    assert len(thumbnails) == sum(image is not None for image in images())
    write_page(run_dir / "again", [run_dir])
    again = sorted((run_dir / "again/thumbnails").rglob("*.webp"))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in thumbnails]
