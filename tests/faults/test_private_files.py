"""Runs, sweeps and labeling folders are for their owner only, whatever the umask; no image that we write has EXIF."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from finetune_monitor.base import files
from finetune_monitor.base.images import read_image, thumbnail
from finetune_monitor.cli import main
from finetune_monitor.metrics.copying import Copying
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record import live
from finetune_monitor.record.run_directory import lock
from finetune_monitor.report.sink import ReportPage
from finetune_monitor.sinks.tensorboard import TensorBoardSink
from finetune_monitor.sinks.wandb import WandbSink
from finetune_monitor.studies.labeling.images import open_gallery, photo_jpeg
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.sweep import ray_session
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.label_plans import write_small_plan
from support.scripted import GRID, Scripted
from support.sweep_folders import write_sweep


@pytest.fixture(params=[0o022, 0o000], ids=["umask 022", "umask 000"], autouse=True)
def umask(request) -> Iterator[None]:
    former = os.umask(request.param)
    yield
    assert os.umask(former) == request.param  # it was given back


def open_to_others(folder: Path) -> list[str]:
    """Everything that others could read or change."""
    paths = [folder, *folder.rglob("*")]
    return [
        f"{path.relative_to(folder.parent)} {mode:o}"
        for path in paths
        if not path.is_symlink() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077
    ]


def test_the_check_sees_what_is_open(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("")
    assert len(open_to_others(tmp_path / "folder")) == 2


@pytest.mark.slow
def test_a_run_in_an_own_loop(pipeline, tmp_path):
    sinks = [TensorBoardSink(), WandbSink("offline"), ReportPage()]
    folder = tmp_path / "runs" / "run"
    photos = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    metrics = [Scripted([0.1, 0.5]), Copying(photos)]
    monitor = FinetuneMonitor(pipeline, GRID, metrics, folder, every=1, sinks=sinks, config_yaml="a: b\n").start()
    live.request(folder, live.EVALUATE)
    monitor.on_step_end(1)
    assert (folder / "requests.jsonl").is_file()
    assert open_to_others(folder) == []
    monitor.close()
    assert (folder / "references").is_dir()
    assert open_to_others(folder) == []


@pytest.mark.slow
def test_a_training(write_config, tmp_path):
    (tmp_path / "class").mkdir()
    assert run(load_config(write_config(), [f"output_dir={tmp_path / 'run'}", "train.max_steps=2"])) == 0
    assert (tmp_path / "run/checkpoints").is_dir()
    assert open_to_others(tmp_path / "run") == []


def test_a_labeling_folder(tmp_path):
    write_small_plan(tmp_path / "plan")
    store = RatingStore(tmp_path / "plan" / RATINGS)
    store.create()
    store.add("key", Rating("image", "ana", "aesthetic", 3))
    assert open_to_others(tmp_path / "plan") == []


def test_a_sweep_its_page_and_an_export(tmp_path):
    sweep = tmp_path / "sweep"
    write_sweep(sweep, lambda *_: 0.5, values=(1, 2), seeds=(0,))
    lock(sweep).close()
    assert open_to_others(sweep) == []
    assert main(["report", str(sweep), "-o", str(tmp_path / "page")]) == 0
    assert open_to_others(tmp_path / "page") == []


@pytest.mark.slow
def test_the_temporary_folder_of_ray(tmp_path):
    """Ray itself opens it to everybody."""
    (tmp_path / "sweep/.ray").mkdir(parents=True)
    with ray_session.ray_session(None, tmp_path / "sweep/.ray"):
        folder = Path((tmp_path / "sweep/.ray" / ray_session.NOTE).read_text())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_a_folder_that_ray_left_is_removed_at_the_next_start(tmp_path, monkeypatch):
    """After a SIGKILL nothing else removes it."""
    monkeypatch.setattr(ray_session, "HOME", tmp_path)
    scratch = tmp_path / "sweep/.ray"
    scratch.mkdir(parents=True)
    left = ray_session._temporary_folder(scratch)
    (left / "session").mkdir(mode=0o777)
    monkeypatch.chdir(left)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")  # a path of its own must not be longer than 107 bytes
    ray_session.remove_temporary(scratch)
    assert not left.exists()


def test_two_threads_give_the_umask_back():
    former = os.umask(0o022)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with files.private():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    with files.private():
        leave.set()
        thread.join()
        assert os.umask(0o077) == 0o077  # still private, though the first has left
    assert os.umask(former) == 0o022


@pytest.mark.slow
def test_no_image_that_is_written_has_exif(pipeline, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "CANARY"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 15.0)})
    (tmp_path / "photos").mkdir()
    for index, color in enumerate(("red", "blue")):
        Image.new("RGB", (700, 400), color).save(tmp_path / f"photos/{index}.jpg", exif=exif, comment=b"CANARY")
    photo = tmp_path / "photos/0.jpg"
    assert b"CANARY" in photo.read_bytes()
    thumbnail(read_image(photo)).save(tmp_path / "thumbnail.webp")
    read_image(photo).save(tmp_path / "again.png")
    (tmp_path / "label.jpg").write_bytes(photo_jpeg(photo))
    monitor = FinetuneMonitor(
        pipeline, GRID, [Scripted([0.5]), Copying(tmp_path / "photos")], tmp_path / "run", every=1
    )
    monitor.on_step_end(1)
    monitor.close()
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "page")]) == 0
    images = [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".webp")]
    written = [path for path in images if path.parent != tmp_path / "photos"]
    assert len(written) > 6
    for path in written:
        assert b"CANARY" not in path.read_bytes(), path
        with Image.open(path) as image:
            assert not image.getexif(), path


def test_a_gallery_shows_no_exif(tmp_path):
    write_small_plan(tmp_path / "plan")
    assert not any(b"CANARY" in content for content in open_gallery(tmp_path / "plan").encoded.values())
