"""The folder of a page: whole, brought up to date with little work, and nobody else's files touched."""

import base64
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report.page import STATIC, write_page
from support.runs import GRID, RUN, evaluation, images, write_run


def told(folder: Path, file: str = "runs") -> Any:
    """What a data file tells the page; of a run's file its second argument."""
    text = (folder / "data" / f"{file}.js").read_text(encoding="ascii")
    arguments = re.fullmatch(r"finetuneMonitor\.(?:manifest|images)\((.*)\);\n", text)
    return json.loads(f"[{arguments[1]}]")[-1]


def times(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file was written, and which one it is."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix(): (stat.st_ctime_ns, stat.st_ino) for path, stat in found.items()}


def add_step(run_dir: Path, step: int, resume: int) -> None:
    record = RunRecord(run_dir, GRID)
    record.begin(RUN, None, resume)
    record.write_images(step, images())
    record.append(evaluation(step))
    record.close()


@pytest.fixture
def ana(tmp_path) -> Path:
    write_run(tmp_path / "ana", {0: 0.1, 50: 0.6})
    return tmp_path / "ana"


@pytest.fixture
def page(tmp_path) -> Path:
    return tmp_path / "page"


def test_everything_the_page_loads_is_beside_it(ana, page):
    found = write_page(page, [ana])
    assert (found.runs, found.evaluations, found.images, found.unreadable) == (1, 2, 8, ())
    [run] = told(page)["runs"]
    for step in run["steps"]:
        for cell in run["ids"]:
            with Image.open(page / "thumbnails" / run["id"] / f"step-{step:06d}" / f"{cell}.webp") as thumbnail:
                assert thumbnail.size == (16, 16)
    assert told(page, run["id"])["scores"]["aesthetic"] == [[5.0] * 4] * 2
    for path in STATIC.iterdir():
        assert (page / path.name).is_file()
    index = (page / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"#]+)"', index):
        assert (page / name).is_file(), name


def test_the_policy_allows_the_styles_that_are_in_it_and_no_others(ana, page):
    write_page(page, [ana])
    index = (page / "index.html").read_bytes()
    policy = re.search(rb'http-equiv="Content-Security-Policy" content="([^"]*)"', index)[1].decode()
    styles = re.findall(rb"<style[^>]*>(.*?)</style>", index, re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(style).digest()).decode()}'" for style in styles}
    assert set(re.findall(r"'sha256-[^']*'", policy)) == hashes
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_plotly_is_the_installed_one_with_placeholders_for_its_styles(ana, page):
    write_page(page, [ana])
    script = (page / "plotly.min.js").read_bytes()
    assert len(script) > 1_000_000
    ids = set(re.findall(rb'getElementById\("([0-9a-f]{64})"\)', script))
    index = (page / "index.html").read_bytes()
    added = script.count(b'createElement("style")')
    assert added == len(ids) + 1  # one is empty, and gets its rules as the policy allows
    assert all(b'<meta id="%s">' % identity in index for identity in ids)
    assert b"plotly placeholders" not in index


@pytest.mark.slow
def test_plotly_is_not_imported():
    code = "import sys, finetune_monitor.report.page as p; p.finished(b''); print('plotly' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_the_second_time_only_the_manifest_is_written(ana, page):
    write_page(page, [ana])
    before = times(page)
    write_page(page, [ana])
    after = times(page)
    assert before.keys() == after.keys()
    assert [name for name in after if after[name] != before[name]] == ["data/runs.js"]


def test_a_further_evaluation_adds_its_own_files_only(ana, page, tmp_path):
    write_run(tmp_path / "ben", {0: 0.1})
    write_page(page, [ana, tmp_path / "ben"])
    before = times(page)
    add_step(ana, 100, resume=50)
    write_page(page, [ana, tmp_path / "ben"])
    after = times(page)
    [identity] = [run["id"] for run in told(page)["runs"] if run["name"] == "ana"]
    changed = {name for name in after if after[name] != before.get(name)}
    added = {f"thumbnails/{identity}/step-000100/{cell.id}.webp" for cell in GRID.cells}
    assert changed == {"data/runs.js", f"data/{identity}.js", *added}
    assert told(page)["runs"][0]["steps"] == [0, 50, 100]


def test_a_rewound_run_loses_what_its_record_has_dropped(ana, page):
    write_page(page, [ana])
    add_step(ana, 30, resume=0)
    write_page(page, [ana])
    [run] = told(page)["runs"]
    assert run["steps"] == [0, 30]
    assert sorted(os.listdir(page / "thumbnails" / run["id"])) == ["step-000000", "step-000030"]


def test_a_run_that_is_not_named_again_leaves_the_page(ana, page, tmp_path):
    write_run(tmp_path / "ben", {0: 0.1})
    write_page(page, [ana, tmp_path / "ben"])
    write_page(page, [ana])
    [run] = told(page)["runs"]
    assert os.listdir(page / "thumbnails") == [run["id"]]
    assert sorted(os.listdir(page / "data")) == sorted([f"{run['id']}.js", "runs.js"])


def test_the_record_is_not_changed(ana, page):
    write_page(page, [ana])
    before = times(ana)
    write_page(page, [ana])
    write_page(ana / "page", [ana])
    after = times(ana)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("page/") for name in after.keys() - before.keys())


def test_problems_are_said_on_the_page(ana, page, tmp_path):
    (ana / "images/step-000050/p00-s0.png").unlink()
    found = write_page(page, [ana, tmp_path / "gone"])
    content = told(page)
    assert content["runs"][0]["problems"] == ["step 50: 1 of 4 images are missing"]
    assert told(page, content["runs"][0]["id"])["absent"] == [[], [0]]
    assert content["unreadable"] == [{"folder": str(tmp_path / "gone"), "problem": found.unreadable[0].problem}]


def test_hostile_names_stay_in_the_folder(page, tmp_path):
    names = [b"..\xff", b"</script>\n", b"a'b\"c\\", "写真".encode()]
    folders = [tmp_path / "runs" / os.fsdecode(name) for name in names]
    for folder in folders:
        write_run(folder, {0: 0.1})
    write_page(page, folders)
    assert len({run["id"] for run in told(page)["runs"]}) == 4
    assert b"<" not in (page / "data" / "runs.js").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["page", "runs"]
    for path in page.rglob("*"):
        assert re.fullmatch(r"[\w.-]+", path.name, re.ASCII)


def test_the_page_says_that_it_is_being_written_before_the_long_work(ana, page, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune_monitor.report.page.make_thumbnails", stop)
    with pytest.raises(KeyboardInterrupt):
        write_page(page, [ana])
    first = told(page)
    assert (first["runs"], first["live"], first["notes"]) == ([], True, ["the page is being written"])
    monkeypatch.undo()
    write_page(page, [ana])
    assert told(page).keys() >= first.keys()


def mine(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")


@pytest.mark.parametrize(
    ("place", "prepare", "found"),
    [
        ("ana", None, "is a run directory"),
        ("ana/images", None, "belongs to the run in"),
        ("ana/best", None, "belongs to the run in"),
        ("ana/images/step-000000/page", None, "belongs to the run in"),
        ("other", mine, "found thesis.txt, expected a page or an empty folder"),
        ("file", Path.touch, "cannot create the folder"),
    ],
)
def test_folders_that_are_not_for_a_page(ana, tmp_path, place, prepare, found):
    if prepare:
        prepare(tmp_path / place)
    before = times(tmp_path)
    with pytest.raises(UserError, match=found):
        write_page(tmp_path / place, [ana])
    assert times(tmp_path) == before


def test_not_one_run_leaves_no_folder(page, tmp_path):
    with pytest.raises(UserError, match="found no readable run"):
        write_page(page, [tmp_path / "gone"])
    assert not page.exists()


def test_two_do_not_write_at_once(ana, page):
    write_page(page, [ana])
    before = times(page)
    with (page / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            write_page(page, [ana])
    assert times(page) == before


def test_references_have_thumbnails_or_none(ana, page, tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "01.png")
    sha = hashlib.sha256((tmp_path / "01.png").read_bytes()).hexdigest()
    photos = [{"file": str(tmp_path / "01.png"), "sha256": sha}, {"file": "gone/02.png", "sha256": "ab" * 32}]
    run = json.loads((ana / "run.json").read_text())
    (ana / "run.json").write_text(json.dumps({**run, "weights": {"face_similarity": {"references": photos}}}))
    write_page(page, [ana])
    [shown] = told(page)["runs"]
    path = f"thumbnails/{shown['id']}/references/{sha[:16]}.webp"
    assert shown["references"] == [
        {"kind": "used", "name": "01.png", "thumbnail": path},
        {"kind": "used", "name": "02.png", "thumbnail": None},
    ]
    assert (page / path).is_file()
    write_page(page, [ana])
    assert (page / path).is_file()
