"""Links planted at predictable names in a run, a sweep, a page or a plan: nothing outside is written or deleted."""

import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_monitor.base import files
from finetune_monitor.base.errors import UserError
from finetune_monitor.record import live
from finetune_monitor.record.run_directory import CONFIG, EVALUATIONS, IMAGES, LOCK, OURS, RUN, SHARED, STATUS, lock
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report.page import write_page
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.sweep import ray_session
from finetune_monitor.training.preflight import _take
from support.runs import GRID, evaluation, images, write_run
from support.runs import RUN as CONTENT


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder that looks in every way like what a run deletes, and a file."""
    folder = tmp_path / "outside"
    for name in ("step-000001", "step-000010", "00000000", "thumbnails/0badc0de", "deep/step-000099"):
        (folder / name).mkdir(parents=True)
        (folder / name / "mine.txt").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "0badc0de.js").write_text("mine")
    return folder


def _content(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() if path.is_file() else "" for path in sorted(folder.rglob("*"))}


def _plant(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _resume_and_evaluate(run: Path) -> None:
    """Everything that a monitor writes in a run directory."""
    with _take(run):
        record = RunRecord(run, GRID)
        record.begin(CONTENT, "model: x\n", 0)
        live.clear_live(run)
        live.open_live(run)
        live.note_request(run, live.STOP, 10)
        live.write_status(run, live.Status(live.TRAINING, 10, 0.0))
        record.write_images(10, images())
        record.append(replace(evaluation(10)))
        record.close()
    write_page(run / "page", [run])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a record that is a link may not be one
@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize(
    "name", [*OURS, *SHARED, RUN, CONFIG, EVALUATIONS, IMAGES, STATUS, "checkpoints/.lock", "page/.lock"]
)
def test_a_run_writes_and_deletes_nothing_behind_a_link(name, kind, outside, tmp_path):
    run = tmp_path / "run"
    write_run(run, {0: 0.2, 5: 0.4})
    before = _content(outside)
    if name in ("images", RUN, EVALUATIONS, IMAGES, LOCK):
        (run / name).rename(run / f"{name}.moved")
    _plant(run / name, outside if kind == "folder" else outside / "file")
    with suppress(UserError, OSError):
        _resume_and_evaluate(run)
    assert _content(outside) == before


@pytest.mark.parametrize("name", [*OURS, LOCK])
def test_the_message_names_the_link(name, outside, tmp_path):
    _plant(tmp_path / "run" / name, outside)
    with pytest.raises(UserError, match=f"run/{name}: found a link.*remove it"):
        lock(tmp_path / "run")


@pytest.mark.parametrize("name", OURS)
def test_a_file_in_the_place_of_a_folder_is_named(name, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).touch()
    with pytest.raises(UserError, match=f"run/{name}: found a file, expected a folder"):
        lock(tmp_path / "run")


def test_a_lock_with_a_second_name_is_not_written(outside, tmp_path):
    (tmp_path / "run").mkdir()
    os.link(outside / "file", tmp_path / "run" / LOCK)
    with pytest.raises(UserError, match="not a file of its own"):
        lock(tmp_path / "run")
    assert (outside / "file").read_text() == "mine"


def test_a_directory_may_itself_be_reached_by_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    _plant(tmp_path / "run", tmp_path / "disk")
    lock(tmp_path / "run").close()


@pytest.mark.parametrize("target", ["run.json", "step-000010"])
def test_staging_never_writes_or_deletes_behind_a_link(target, outside, tmp_path):
    before = _content(outside)
    run = tmp_path / "run"
    for name in (f"{files.STAGING}{target}", f"{files.STAGING}old-{target}", f"{files.STAGING}{target}-0badc0de"):
        _plant(run / name, outside if target.startswith("step") else outside / "file")
    if target.startswith("step"):
        with files.staged_folder(run / target) as staged:
            (staged / "a").write_text("new")
    else:
        files.write_atomic(run / target, b"new")
    assert _content(outside) == before
    assert (run / target).exists()


def test_staging_removes_what_a_killed_process_left(tmp_path):
    for name in ("step-000010-0badc0de", "old-step-000010-0badc0de", "step-000010"):
        (tmp_path / f"{files.STAGING}{name}").mkdir()
    (tmp_path / f"{files.STAGING}step-0000100-0badc0de").mkdir()  # of another step
    with files.staged_folder(tmp_path / "step-000010"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".staging-step-0000100-0badc0de", "step-000010"]


def test_a_target_that_is_a_link_is_replaced_and_not_followed(outside, tmp_path):
    before = _content(outside)
    _plant(tmp_path / "run/best", outside)
    _plant(tmp_path / "run/run.json", outside / "file")
    with files.staged_folder(tmp_path / "run/best") as staged:
        (staged / "a").write_text("new")
    files.write_atomic(tmp_path / "run/run.json", b"new")
    assert _content(outside) == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best", "run.json"]
    assert not (tmp_path / "run/best").is_symlink()


@pytest.mark.parametrize("place", ["data", "thumbnails", "thumbnails/0badc0de", ".lock", "index.html"])
def test_a_page_writes_and_deletes_nothing_behind_a_link(place, outside, tmp_path):
    run, page = tmp_path / "run", tmp_path / "page"
    write_run(run, {0: 0.2})
    write_page(page, [run])
    before = _content(outside)
    if (page / place).exists():
        (page / place).rename(tmp_path / "moved")
    if place == "data":  # it must still look like a page
        (outside / "runs.js").write_text((tmp_path / "moved/runs.js").read_text())
        before = _content(outside)
    _plant(page / place, outside / "file" if place in (".lock", "index.html") else outside)
    with pytest.raises(UserError, match="found a link"):
        write_page(page, [run])
    assert _content(outside) == before


def test_ratings_behind_a_link_are_not_written(tmp_path):
    _plant(tmp_path / "plan" / RATINGS, tmp_path / "elsewhere.sqlite")
    with pytest.raises(UserError, match="found a link"):
        RatingStore(tmp_path / "plan" / RATINGS).create()
    assert not (tmp_path / "elsewhere.sqlite").exists()


def test_a_sweep_deletes_only_the_temporary_folder_that_it_made(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_session, "HOME", tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    scratch, other = tmp_path / "sweep/.ray", tmp_path / "other/.ray"
    for folder in (scratch, other):
        folder.mkdir(parents=True)
    running = ray_session._temporary_folder(other)
    elsewhere = Path(tempfile.mkdtemp(prefix=ray_session.PREFIX, dir=tmp_path))
    linked = tmp_path / "tmp" / f"{ray_session.PREFIX}link"
    linked.symlink_to(elsewhere)
    for victim in (running, elsewhere, linked):
        (scratch / ray_session.NOTE).write_text(str(victim))
        ray_session.remove_temporary(scratch)
        assert victim.is_dir()
    (scratch / ray_session.NOTE).unlink()
    (scratch / ray_session.NOTE).symlink_to(other / ray_session.NOTE)
    ray_session.remove_temporary(scratch)
    assert running.is_dir()
    ray_session.remove_temporary(other)
    assert not running.exists()


def test_a_note_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ray_session.NOTE)
    ray_session.remove_temporary(tmp_path)
