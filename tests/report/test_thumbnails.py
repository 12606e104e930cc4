"""Thumbnails: small, made once, made anew where the image has changed, and never of what lies outside a run."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report import thumbnails
from finetune_monitor.report.manifest import on_demand
from finetune_monitor.report.page_runs import PageRun, Reference, read_runs
from finetune_monitor.report.thumbnails import (
    MANY,
    Job,
    Presence,
    ThumbnailPlan,
    make_thumbnail,
    make_thumbnails,
    plan_thumbnails,
    reference_thumbnail,
)
from support.runs import GRID, RUN, evaluation, images, write_run

CELLS = [cell.id for cell in GRID.cells]


@pytest.fixture
def run(tmp_path) -> PageRun:
    write_run(tmp_path / "run", {0: 0.1, 50: 0.5})
    return read(tmp_path / "run")


def read(run_dir: Path) -> PageRun:
    return read_runs([run_dir])[0][0]


def written(run: PageRun, folder: Path) -> ThumbnailPlan:
    plan = plan_thumbnails(run, folder)
    make_thumbnails([plan])
    return plan


def name_files(run_dir: Path, files: dict[str, str | None]) -> None:
    """Let `images.jsonl` name other files for these cells."""
    rows = [json.loads(line) for line in (run_dir / "images.jsonl").read_text().splitlines()]
    changed = [{**row, "file": files.get(row["cell"], row["file"])} for row in rows]
    (run_dir / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))


@pytest.mark.parametrize(
    ("size", "small"),
    [((512, 512), (256, 256)), ((64, 64), (64, 64)), ((300, 100), (256, 85)), ((100, 1000), (26, 256))],
)
def test_at_most_256_pixels_and_never_enlarged(tmp_path, size, small):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert make_thumbnail(Job(tmp_path / "a.png", tmp_path / "x" / "a.webp", 10**18))
    with Image.open(tmp_path / "x" / "a.webp") as found:
        assert (found.format, found.size) == ("WEBP", small)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.webp"]


def test_one_an_image_and_each_is_its_own(run, tmp_path):
    plan = written(run, tmp_path / "page")
    assert plan.presences == {0: [Presence.SHOWN] * 4, 50: [Presence.SHOWN] * 4}
    for step in (0, 50):
        for cell, source in zip(CELLS, images(), strict=True):
            with Image.open(tmp_path / "page" / f"step-{step:06d}" / f"{cell}.webp") as found:
                near = zip(found.convert("RGB").getpixel((8, 8)), source.getpixel((8, 8)), strict=True)
                assert max(abs(a - b) for a, b in near) < 12


def test_the_second_time_there_is_nothing_to_do(run, tmp_path):
    written(run, tmp_path / "page")
    again = plan_thumbnails(run, tmp_path / "page")
    assert again.jobs == {}
    assert again.presences == {0: [Presence.SHOWN] * 4, 50: [Presence.SHOWN] * 4}


def test_a_step_that_was_recorded_again_is_made_again(run, tmp_path):
    written(run, tmp_path / "page")
    record = RunRecord(run.folder, GRID)
    record.begin(RUN, None, 0)
    record.write_images(50, [Image.new("RGB", (16, 16), "white")] * 4)
    record.append(evaluation(50, 0.7))
    record.close()
    old = (tmp_path / "page/step-000050/p00-s0.webp").read_bytes()
    plan = written(read(run.folder), tmp_path / "page")
    assert sorted(plan.jobs) == [(50, position) for position in range(4)]
    assert (tmp_path / "page/step-000050/p00-s0.webp").read_bytes() != old


def test_what_a_crash_of_the_machine_left_empty_is_made_again(run, tmp_path):
    written(run, tmp_path / "page")
    victim = tmp_path / "page/step-000050/p00-s0.webp"
    times = victim.stat()
    victim.write_bytes(b"")
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert list(plan_thumbnails(run, tmp_path / "page").jobs) == [(50, 0)]


def test_images_that_are_gone_damaged_or_were_not_rendered(run, tmp_path):
    (run.folder / "images/step-000000/p00-s0.png").unlink()
    (run.folder / "images/step-000000/p00-s7.png").write_text("no image")
    name_files(run.folder, {"p01-s0": None})
    plan = written(read(run.folder), tmp_path / "page")
    assert plan.presences[0] == [Presence.MISSING, Presence.UNREADABLE, Presence.NOT_RENDERED, Presence.SHOWN]
    assert plan.kept["step-000000"] == {"p01-s7.webp"} == set(os.listdir(tmp_path / "page/step-000000"))


def test_an_evaluation_with_other_cells_than_the_grid(run, tmp_path):
    fewer = replace(run, evaluations=tuple(replace(found, images=found.images[1:]) for found in run.evaluations))
    assert written(fewer, tmp_path / "page").presences[0] == [Presence.NOT_RENDERED, *[Presence.SHOWN] * 3]


def test_no_file_outside_the_run_directory_is_read(run, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (16, 16), "red").save(secret)
    (run.folder / "link.png").symlink_to(secret)
    (run.folder / "folder").symlink_to(tmp_path)
    files = ["../secret.png", str(secret), "link.png", "folder/secret.png"]
    name_files(run.folder, dict(zip(CELLS, files, strict=True)))
    plan = written(read(run.folder), tmp_path / "page")
    assert plan.presences[0] == [Presence.OUTSIDE] * 4
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("file", ["", ".", "images", "a\0b", "x" * 5000, "images/step-000000"])
def test_names_that_are_no_files(run, tmp_path, file):
    name_files(run.folder, dict.fromkeys(CELLS, file))
    plan = written(read(run.folder), tmp_path / "page")
    assert Presence.SHOWN not in plan.presences[0]


@pytest.mark.slow
def test_several_processes_make_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "MANY", 1)
    write_run(tmp_path / "run", {0: 0.1})
    (tmp_path / "run/images/step-000000/p00-s0.png").write_text("no image")
    run = read(tmp_path / "run")
    alone, shared = plan_thumbnails(run, tmp_path / "alone"), plan_thumbnails(run, tmp_path / "shared")
    make_thumbnails([alone])
    make_thumbnails([shared], processes=2)
    assert shared.presences == alone.presences == {0: [Presence.UNREADABLE, *[Presence.SHOWN] * 3]}
    for path in (tmp_path / "alone").rglob("*.webp"):
        assert (tmp_path / "shared" / path.relative_to(tmp_path / "alone")).read_bytes() == path.read_bytes()


def test_a_bar_is_worth_it_for_many_only(run, tmp_path, capsys):
    written(run, tmp_path / "page")
    assert capsys.readouterr().err == ""
    assert MANY > 64


def photo(path: Path, color: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (400, 300), color).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_photo_comes_from_the_run_directory(run, tmp_path):
    sha = "ab" * 32
    photo(run.folder / "references" / f"{sha[:16]}.webp", "blue")
    name = reference_thumbnail(run, Reference("used", "/gone/01.png", sha), tmp_path / "page")
    assert name == f"{sha[:16]}.webp"
    with Image.open(tmp_path / "page" / name) as found:
        assert found.size == (256, 192)


def test_a_photo_in_the_run_directory_that_is_a_link_is_not_followed(run, tmp_path):
    sha = photo(tmp_path / "secret.png", "blue")[::-1]
    (run.folder / "references").mkdir()
    (run.folder / "references" / f"{sha[:16]}.webp").symlink_to(tmp_path / "secret.png")
    assert reference_thumbnail(run, Reference("used", "/gone/01.png", sha), tmp_path / "page") is None


def test_a_photo_comes_from_its_file_unless_that_has_changed(run, tmp_path):
    file = tmp_path / "photos" / "01.png"
    reference = Reference("used", str(file), photo(file, "blue"))
    changed = replace(reference, sha256="cd" * 32)
    gone = replace(reference, file=str(tmp_path / "gone.png"), sha256="ef" * 32)
    assert reference_thumbnail(run, changed, tmp_path / "page") is None
    assert reference_thumbnail(run, gone, tmp_path / "page") is None
    assert reference_thumbnail(run, reference, tmp_path / "page") == f"{reference.sha256[:16]}.webp"
    file.unlink()
    assert reference_thumbnail(run, reference, tmp_path / "page") == f"{reference.sha256[:16]}.webp"


def test_a_photo_that_is_no_image(run, tmp_path):
    file = tmp_path / "01.png"
    file.write_text("no image")
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    assert reference_thumbnail(run, Reference("used", str(file), sha), tmp_path / "page") is None


def test_images_at_full_quality_have_thumbnails_of_their_own(tmp_path):
    write_run(tmp_path / "run", {0: 0.1, 50: 0.5})
    record = RunRecord(tmp_path / "run", GRID)
    found = evaluation(50, 0.7)
    record.add_full_quality(found, images())
    record.close()
    run = read(tmp_path / "run")
    plan = written(run, tmp_path / "page")
    assert plan.at_full_quality is not None
    assert plan.at_full_quality.presences == {50: [Presence.SHOWN] * 4}
    for name in ("step-000050", "step-000050-full"):
        assert {path.stem for path in (tmp_path / "page" / name).iterdir()} == set(CELLS)
    assert [part.jobs for part in plan_thumbnails(run, tmp_path / "page").parts] == [{}, {}]
    told = on_demand(run, plan.presences, plan.at_full_quality.presences)["full"][50]
    assert (told["absent"], told["scores"]["face_similarity"]["mean"]) == (
        [],
        pytest.approx(found.scores["face_similarity"].mean),
    )
