"""A run directory, sweep, or plan from elsewhere names files outside it: no command shows or copies them."""

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import Containment
from finetune_monitor.cli import main
from finetune_monitor.models.export import NOTE
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.kept_weights import kept_weights
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState, read_state, write_state
from finetune_monitor.studies.labeling.images import open_gallery
from finetune_monitor.studies.labeling.tasks import PLAN
from support.label_plans import write_small_plan
from support.runs import write_run

CANARY = (251, 7, 233)
FIRST_CELL = "p00-s0"


def _secret(folder: Path) -> Path:
    """An image of one color, and a text, outside of what the commands are given."""
    folder.mkdir()
    Image.new("RGB", (64, 64), CANARY).save(folder / "face.png")
    (folder / "secret.txt").write_text("CANARY-outside")
    return folder / "face.png"


def _absolute(run: Path, secret: Path) -> str:
    return str(secret)


def _upward(run: Path, secret: Path) -> str:
    return f"images/../../{secret.parent.name}/{secret.name}"


def _linked(run: Path, secret: Path) -> str:
    (run / "images/link.png").symlink_to(secret)
    return "images/link.png"


def _below_a_link(run: Path, secret: Path) -> str:
    (run / "images/elsewhere").symlink_to(secret.parent)
    return f"images/elsewhere/{secret.name}"


def _below_a_link_to_a_link(run: Path, secret: Path) -> str:
    (run / "way").symlink_to("images")
    (run / "images/elsewhere").symlink_to(secret.parent)
    return f"way/elsewhere/{secret.name}"


def _over_a_link(run: Path, secret: Path) -> str:
    (run / "deep").symlink_to(secret.parent)
    return f"deep/../{secret.parent.name}/{secret.name}"


WAYS = (_absolute, _upward, _linked, _below_a_link, _below_a_link_to_a_link, _over_a_link)


def _foreign_run(folder: Path, way: Callable[[Path, Path], str]) -> Path:
    """A run whose record names the secret image for one cell."""
    secret = _secret(folder / "outside")
    run = folder / "run"
    write_run(run, {0: 0.2, 10: 0.5}, StopReason.PLATEAU)
    named = way(run, secret)
    rows = [json.loads(line) for line in (run / "images.jsonl").read_text().splitlines()]
    for row in rows:
        row["file"] = named if row["cell"] == FIRST_CELL else row["file"]
    (run / "images.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


def _shows_the_secret(output: Path) -> bool:
    """Whether any image in these files, or embedded in one, has the secret's color."""
    contents = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    embedded = [base64.b64decode(text) for content in contents for text in re.findall(rb">([\w+/=]{200,})<", content)]
    return any(_is_secret(content) for content in (*contents, *embedded))


def _is_secret(content: bytes) -> bool:
    if b"CANARY-outside" in content:
        return True
    try:
        color = Image.open(io.BytesIO(content)).convert("RGB").resize((1, 1)).getpixel((0, 0))
    except (OSError, ValueError):
        return False
    return max(abs(a - b) for a, b in zip(color, CANARY, strict=True)) < 12


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_command_shows_what_a_run_names_outside(way, tmp_path, capsys):
    run = _foreign_run(tmp_path, way)
    output = tmp_path / "output"
    plan = str(output / "plan")
    for words, status in (
        (["show", run], 0),
        (["compare", run, run, "--step", "0", "10"], 0),
        (["report", run, "-o", output / "page"], 0),
        (["render", run, "--step", "0", "--cell", FIRST_CELL, "-o", output / "again.png"], 2),
        (["label", "plan", run, "-o", plan], 0),
        (["label", "export", plan, "-o", output / "page.html"], 0),
    ):
        assert main(list(map(str, words))) == status, words
    said = capsys.readouterr()
    assert "outside the run directory" in said.err  # render
    assert "2 of 8 images are outside the run directory and are left out" in said.out  # label plan
    tasks = (output / "plan/tasks.csv").read_text()
    assert "face.png" not in tasks
    assert "link.png" not in tasks
    assert not _shows_the_secret(output)


def test_the_search_for_the_secret_finds_it(tmp_path):
    secret = _secret(tmp_path / "outside")
    (tmp_path / "copy").mkdir()
    assert not _shows_the_secret(tmp_path / "copy")
    shutil.copy(secret, tmp_path / "copy")
    assert _shows_the_secret(tmp_path / "copy")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["..", ".", "images", "step", "link", "loop", "face.png", "", "/"]), max_size=6))
def test_a_contained_path_is_inside_whatever_the_name(tmp_path, parts):
    root = tmp_path / "root"
    if not root.exists():
        _secret(tmp_path / "outside")
        (root / "images/step").mkdir(parents=True)
        (root / "link").symlink_to(tmp_path / "outside")
        (root / "images/link").symlink_to("../..")
        (root / "loop").symlink_to("images")
    name = "/".join(parts)
    found = Containment(root).path(name)
    plain = Path(os.path.realpath(root)) / name
    if found is not None:
        assert os.path.realpath(found) == str(plain)
        assert plain.is_relative_to(os.path.realpath(root))
    elif name:
        assert ".." in parts or name.startswith("/") or os.path.realpath(root / name) != str(plain)


def _plan_with(folder: Path, change: Callable[[dict], None]) -> Path:
    write_small_plan(folder / "plan")
    content = json.loads((folder / "plan" / PLAN).read_text())
    change(content)
    (folder / "plan" / PLAN).write_text(json.dumps(content))
    return folder / "plan"


@pytest.mark.parametrize("digest", [None, "0" * 64], ids=["without SHA-256", "with another SHA-256"])
def test_a_plan_shows_no_photo_whose_content_it_does_not_know(digest, tmp_path):
    secret = _secret(tmp_path / "outside")

    def name_the_secret(content):
        for photos in content["references"].values():
            photos[0] = str(secret)
        if digest:
            content["sha256"][str(secret)] = digest

    plan = _plan_with(tmp_path, name_the_secret)
    gallery = open_gallery(plan)  # what `label serve` shows
    assert sum(str(secret) in problem for problem in gallery.left_out) == 2
    assert not any(map(_is_secret, gallery.encoded.values()))
    assert main(["label", "export", str(plan), "-o", str(tmp_path / "page.html")]) == 0
    (tmp_path / "written").mkdir()
    shutil.move(tmp_path / "page.html", tmp_path / "written")
    assert not _shows_the_secret(tmp_path / "written")


@pytest.mark.parametrize("place", ["last", "best", "weights/step-000010", "last/inside"])
def test_weights_behind_a_link_are_not_loaded(place, tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    write_run(run, {0: 0.2, 10: 0.5})
    outside.mkdir()
    (outside / NOTE).write_text('{"step": 10}')
    (run / place).parent.mkdir(parents=True, exist_ok=True)
    if place == "last/inside":
        shutil.copy(outside / NOTE, run / "last")
    (run / place).symlink_to(outside)
    assert kept_weights(run) == {}


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/b", "..", "linked"])
def test_a_sweep_has_no_trial_outside_of_its_folder(name, tmp_path):
    sweep, outside = tmp_path / "sweep", tmp_path / "outside"
    write_run(outside, {0: 0.2})
    (sweep / "trials").mkdir(parents=True)
    (sweep / "trials/linked").symlink_to(outside)
    write_state(SweepState(sweep, {}, (TrialRecord(name, {}, state=TrialState.FINISHED, attempts=1),)))
    with pytest.raises(UserError, match="leads out of the folder"):
        read_state(sweep)
    assert main(["report", str(sweep), "-o", str(tmp_path / "page")]) == 2
    assert not (tmp_path / "page/thumbnails").exists()
