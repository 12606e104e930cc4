"""Accelerate: losses and scores side by side, in the same files."""

from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_monitor.record.evaluation import RunSummary
from finetune_monitor.sinks import Sink
from finetune_monitor.sinks.accelerate import TrackerSink, accelerate_sinks, end, log, start_sinks
from finetune_monitor.sinks.tensorboard import TensorBoardSink, event_folder
from finetune_monitor.sinks.wandb import WandbSink
from support.runs import CEILING, NOTICE, evaluation, images, run_info, wait_for_the_next_second


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Everything that wandb writes goes to the test's folder."""
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def run(sinks: list[Sink], accelerator: Accelerator, folder: Path, steps: list[int], score: float, **changes) -> None:
    for sink in sinks:
        sink.start(run_info(folder, **changes))
    for step in steps:
        accelerator.log({"loss": score}, step=step)
        for sink in sinks:
            sink.write(evaluation(step, score), images())
    for sink in sinks:
        sink.close(RunSummary((evaluation(steps[-1], score),), "face_similarity", steps[-1], None))


def test_losses_and_scores_stand_in_one_tensorboard_folder(tmp_path):
    accelerator = Accelerator(cpu=True)
    sinks = start_sinks(accelerator, tmp_path, {TensorBoardSink: {}})
    assert [type(sink) for sink in sinks] == [TensorBoardSink]
    run(sinks, accelerator, tmp_path, [0, 300], 0.1)
    accelerator.log({"loss": 0.5}, step=301)
    accelerator.end_training()
    assert points(event_folder(tmp_path), "face_similarity") == [(0, 0.115), (300, 0.115)]
    assert points(event_folder(tmp_path), "loss") == [(0, 0.1), (300, 0.1), (301, 0.5)]
    assert [path.name for path in event_folder(tmp_path).iterdir() if path.is_dir()] == ["best"]


@pytest.mark.slow
def test_a_resume_hides_losses_and_scores_after_the_checkpoint(tmp_path):
    first = Accelerator(cpu=True)
    run(start_sinks(first, tmp_path, {TensorBoardSink: {}}), first, tmp_path, [0, 300, 600], 0.1)
    wait_for_the_next_second()
    second = Accelerator(cpu=True)
    run(start_sinks(second, tmp_path, {TensorBoardSink: {}}, 450), second, tmp_path, [600], 0.2, resume_step=450)
    second.end_training()
    assert points(event_folder(tmp_path), "loss") == [(0, 0.1), (300, 0.1), (600, 0.2)]
    first.end_training()


@pytest.mark.slow
def test_both_trackers_are_shared_and_the_options_reach_them(tmp_path):
    accelerator = Accelerator(cpu=True)
    options = {"mode": "offline", "project": "mine", "entity": None, "name": "named", "images": False}
    sinks = start_sinks(accelerator, tmp_path, {TensorBoardSink: {}, WandbSink: options})
    assert [type(sink) for sink in sinks] == [TensorBoardSink, WandbSink]
    wandb_run = accelerator.get_tracker("wandb", unwrap=True)
    assert (wandb_run.project, wandb_run.name) == ("mine", "named")
    run(sinks, accelerator, tmp_path, [0, 1], 0.1)
    assert round(wandb_run.summary["face_similarity"], 3) == 0.115
    assert wandb_run.summary["loss"] == 0.1
    accelerator.end_training()
    assert (tmp_path / "wandb" / "run-id").read_text() == wandb_run.id
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".png", ".jpg")]


class Diary:
    """A sink that shares no tracker."""

    name = "diary"

    def __init__(self, page: int = 1) -> None:
        self.page = page
        if page < 1:
            raise ValueError("no such page")

    def start(self, run) -> None: ...

    def write(self, evaluation, images) -> None: ...

    def close(self, summary) -> None: ...


def test_a_sink_without_a_tracker_gets_its_options_and_one_that_cannot_start_is_off(tmp_path, caplog):
    accelerator = Accelerator(cpu=True)
    [diary] = start_sinks(accelerator, tmp_path, {Diary: {"page": 3}})
    assert (diary.page, accelerator.trackers) == (3, [])
    assert start_sinks(accelerator, tmp_path, {Diary: {"page": 0}}) == []
    assert "sink diary cannot start and is turned off for this run: ValueError('no such page')" in caplog.text


class Notebook(GeneralTracker):
    """Keeps what it is told."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self) -> None:
        self.config: dict = {}
        self.logged: list[tuple[int, dict]] = []
        super().__init__()

    @property
    def tracker(self) -> list:
        return self.logged

    def store_init_configuration(self, values: dict) -> None:
        self.config |= values

    def log(self, values: dict, step: int | None = None, **kwargs) -> None:
        self.logged.append((step, values))


class Album(Notebook):
    """Takes images, too."""

    def log_images(self, values: dict, step: int | None = None, **kwargs) -> None:
        self.logged.append((step, {key: [image.shape[2] for image in images] for key, images in values.items()}))


@pytest.mark.parametrize(("tracker", "imaged"), [(Notebook, []), (Album, [(300, {"grid": [3]})])])
def test_any_other_tracker_gets_scores_and_images_if_it_takes_them(tmp_path, tracker, imaged):
    notebook = tracker()
    accelerator = Accelerator(cpu=True, log_with=[notebook])
    accelerator.init_trackers("project")
    [sink] = accelerate_sinks(accelerator)
    assert isinstance(sink, TrackerSink)
    assert isinstance(sink, Sink)
    sink.start(run_info(tmp_path))
    sink.write(evaluation(300, 0.1, faces=0), images())
    sink.close(RunSummary((evaluation(300, 0.1),), "face_similarity", 300, None))
    assert notebook.config["train.rank"] == 4
    assert NOTICE in notebook.config.values()
    assert "CANARY" not in notebook.config.values()
    step, scores = notebook.logged[0]
    assert step == 300
    assert scores["faces_found"] == 0.0
    assert "face_similarity" not in scores
    assert scores["ceiling/face_similarity"] == CEILING.mean
    assert notebook.logged[1:-1] == imaged
    assert round(notebook.logged[-1][1]["best/face_similarity"], 3) == 0.115


def test_only_the_main_process_has_sinks(tmp_path, monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(type(accelerator), "is_main_process", property(lambda self: False))
    assert start_sinks(accelerator, tmp_path, {TensorBoardSink: {}}) == []
    assert accelerate_sinks(accelerator) == []
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_fails_is_off_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    accelerator = Accelerator(cpu=True)
    start_sinks(accelerator, tmp_path, {TensorBoardSink: {}, WandbSink: {"mode": "disabled"}})
    tensorboard, wandb = accelerator.trackers

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "log", full)
    log(accelerator, {"train/loss": 1.0}, step=1)
    log(accelerator, {"train/loss": 1.0}, step=2)
    assert accelerator.trackers == [wandb]
    assert caplog.text.count("No space left") == 1
    end(accelerator)
    tensorboard.writer.close()
