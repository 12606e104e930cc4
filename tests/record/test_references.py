"""Small images of the reference photos in the run directory, and that a run's end is noted before its sinks close."""

import json

import numpy as np
import pytest
from PIL import Image

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.base.images import thumbnail
from finetune_monitor.metrics import Description
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.references import keep_references, reference_path

GRID = PromptGrid(["a cat"], [0], steps=1)


class Toy:
    """A metric with small images of two photos."""

    name = "toy"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self) -> None:
        self._thumbnails = {"ab" * 32: Image.new("RGB", (20, 10), "red"), "cd" * 32: Image.new("RGB", (8, 8), "blue")}

    def score(self, images, cells) -> dict[str, np.ndarray]:
        return {self.name: np.full(len(images), 0.5)}

    def describe(self) -> Description:
        return Description(thumbnails=self._thumbnails)


@pytest.mark.parametrize(
    ("size", "small"),
    [((1000, 500), (256, 128)), ((300, 900), (85, 256)), ((256, 256), (256, 256)), ((40, 30), (40, 30))],
)
def test_thumbnails_are_at_most_256_pixels_and_never_enlarged(size, small):
    assert thumbnail(Image.new("RGB", size)).size == small


def test_a_line_of_pixels_stays_an_image():
    assert thumbnail(Image.new("RGB", (5000, 1))).size == (256, 1)


def test_a_thumbnail_shows_the_photo_and_does_not_say_where_it_was_taken(tmp_path):
    photo = Image.new("RGB", (600, 400), (200, 30, 30))
    exif = Image.Exif()
    exif[0x010E] = "CANARY"
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    opened = Image.open(tmp_path / "photo.jpg")
    assert b"CANARY" in opened.info["exif"]
    keep_references(tmp_path, {"ef" * 32: thumbnail(opened)}, lambda *_: None)
    kept = reference_path(tmp_path, "ef" * 32)
    assert kept == tmp_path / "references/efefefefefefefef.webp"
    assert b"CANARY" not in kept.read_bytes()
    with Image.open(kept) as image:
        assert (image.format, image.size) == ("WEBP", (256, 171))
        assert np.abs(np.asarray(image.convert("RGB")).mean(axis=(0, 1)) - (200, 30, 30)).max() < 5


def test_a_run_keeps_them_from_its_beginning_and_a_resumed_one_adds_what_is_missing(pipeline, run_folder):
    monitor = FinetuneMonitor(pipeline, GRID, [Toy()], run_folder, every=1).start()
    first, second = sorted((run_folder / "references").iterdir())
    assert (first.name, second.name) == ("ab" * 8 + ".webp", "cd" * 8 + ".webp")
    monitor.close()
    second.unlink()
    (run_folder / "references/own.txt").write_text("mine")
    before = first.stat().st_mtime_ns
    FinetuneMonitor(pipeline, GRID, [Toy()], run_folder, every=1, resume_step=0).start().close()
    assert second.exists()
    assert first.stat().st_mtime_ns == before
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name, second.name, "own.txt"]


def test_where_they_cannot_be_written_the_run_goes_on(pipeline, run_folder, caplog):
    toy = Toy()
    toy._thumbnails["ab" * 32] = Image.new("RGB", (20_000, 1))  # wider than the format allows
    monitor = FinetuneMonitor(pipeline, GRID, [toy], run_folder, every=1).start()
    monitor.on_step_end(1)
    monitor.close()
    assert len(read_run(run_folder).evaluations) == 2
    assert caplog.text.count("cannot save thumbnails") == 1


class Reader:
    """A sink that reads the record when it is closed."""

    name = "reader"

    def start(self, run) -> None:
        self.folder = run.output_dir

    def write(self, evaluation, images) -> None:
        self.during = json.loads((self.folder / "run.json").read_text())

    def close(self, summary) -> None:
        self.at_the_end = json.loads((self.folder / "run.json").read_text())


def test_a_sink_that_reads_the_record_at_its_end_sees_why_the_run_ended(pipeline, run_folder):
    reader = Reader()
    FinetuneMonitor(pipeline, GRID, [Toy()], run_folder, [reader], every=1).start().close(StopReason.MAX_STEPS)
    assert "ended" not in reader.during
    ended = reader.at_the_end["ended"]
    assert (ended["reason"], ended["best_metric"], ended["best_step"]) == ("max_steps", "toy", 0)
    assert read_run(run_folder).run == reader.at_the_end


def test_where_the_end_cannot_be_noted_the_sinks_are_closed_and_the_directory_is_free(
    pipeline, run_folder, monkeypatch, caplog
):
    reader = Reader()
    monitor = FinetuneMonitor(pipeline, GRID, [Toy()], run_folder, [reader], every=1).start()

    def full(summary):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monitor.record, "end", full)
    monitor.close()
    assert "ended" not in reader.at_the_end
    assert "No space left" in caplog.text
    FinetuneMonitor(pipeline, GRID, [Toy()], run_folder, every=1, resume_step=0).start().close()
