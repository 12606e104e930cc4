"""A plan comes back as it was written, wherever it has moved to; damaged, it is an error and nothing else."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.labeling.tasks import PLAN, TASK_COLUMNS, TASKS, LabelingPlan, Task, read_plan, write_plan

DIGEST = "ab" * 32
NAMES = [
    "plain",
    'comma, "quote" and space ',
    " leading",
    "line\nbreak",
    "carriage\rreturn",
    "both\r\nof them",
    "caf\u00e9 \u5199\u771f \u2028",
    os.fsdecode(b"not utf-8 \xff\xfe"),
    "=1+1",
    "-o",
    "#hash;semicolon\ttab",
    "back\\slash",
]


def plan_in(root: Path, name: str = "plain") -> LabelingPlan:
    """A task of a run, its repeat, and one of a folder of images, below `root`, all with the name in them."""
    run = root / name / "run"
    first = Task("a1", "face_similarity", name, run / "images/step-000300" / f"{name}.png", DIGEST, run, 300, "p00-s0")
    again = replace(first, image_id="b2", repeat_of="a1")
    other = Task("c3", "aesthetic", name, root / "images" / name, DIGEST)
    return LabelingPlan((first, again, other), {name: (root / name / "photo 1.jpg", root / "photos" / name)}, -7)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_read_back(tmp_path, name):
    plan = plan_in(tmp_path, name)
    write_plan(tmp_path / name / "plan", plan)
    found = read_plan(tmp_path / name / "plan")
    assert found == plan
    assert found.by_id["b2"] == plan.tasks[1]
    assert found.metrics == ("face_similarity", "aesthetic")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reaches_the_same_file(tmp_path, name):
    """Not the text alone: the file system takes it."""
    plan = plan_in(tmp_path, name)
    for task in plan.tasks:
        task.file.parent.mkdir(parents=True, exist_ok=True)
        task.file.write_text(name, errors="surrogateescape")
    write_plan(tmp_path / "plan", plan)
    assert all(task.file.read_bytes() == os.fsencode(name) for task in read_plan(tmp_path / "plan").tasks)


@settings(max_examples=100, deadline=None)
@given(
    name=st.binary(min_size=1, max_size=12)
    .filter(lambda name: not {0, ord("/")} & set(name) and name not in (b".", b".."))
    .map(os.fsdecode)
)
def test_any_file_name_comes_back(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("any")
    plan = plan_in(folder, name)
    write_plan(folder / "plan", plan)
    assert read_plan(folder / "plan") == plan


@pytest.mark.parametrize("relative_folder", [False, True])
@pytest.mark.parametrize("relative_images", [False, True])
def test_paths_may_be_relative_or_absolute_and_the_whole_tree_may_move(
    tmp_path, monkeypatch, relative_folder, relative_images
):
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    write_plan((Path() if relative_folder else project) / "plan", plan_in(Path() if relative_images else project))
    assert read_plan(Path("plan")) == read_plan(project / "plan") == plan_in(project)
    monkeypatch.chdir(project / "plan")
    assert read_plan(Path()) == plan_in(project)
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert read_plan(Path("moved/plan")) == plan_in(tmp_path / "moved")
    assert str(tmp_path) not in (tmp_path / "moved/plan" / TASKS).read_text()


def test_a_link_to_the_plan_or_to_the_project_leads_to_the_images(tmp_path):
    project, elsewhere = tmp_path / "disk/a/project", tmp_path / "elsewhere"
    image = project / "run/image.png"
    image.parent.mkdir(parents=True)
    image.touch()
    elsewhere.mkdir()
    (project / "plans").symlink_to(elsewhere)
    (tmp_path / "home").symlink_to(project)
    for alias in (project, tmp_path / "home"):
        for folder in ("plan", "plans/inner"):
            task = Task("a1", "aesthetic", "p", alias / "run/image.png", DIGEST, alias / "run", 0, "p00-s0")
            write_plan(alias / folder, LabelingPlan((task,), {}, 0))
            for reader in (project / folder, tmp_path / "home" / folder):
                [found] = read_plan(reader).tasks
                assert found.file.samefile(image)
                assert found.run.samefile(image.parent)


def test_a_project_that_was_named_by_a_link_may_move(tmp_path):
    (tmp_path / "disk/project").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    write_plan(tmp_path / "disk/project/plan", plan_in(tmp_path / "home/project"))
    (tmp_path / "disk/project").rename(tmp_path / "moved")
    assert read_plan(tmp_path / "moved/plan") == plan_in(tmp_path / "moved")


def test_images_on_a_linked_disk_are_reached_by_the_link(tmp_path):
    """So that the link may be turned to where they went."""
    (tmp_path / "disk/deep/runs").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/runs").symlink_to(tmp_path / "disk/deep/runs")
    write_plan(tmp_path / "project/plan", plan_in(tmp_path / "project/runs"))
    assert read_plan(tmp_path / "project/plan") == plan_in(tmp_path / "project/runs")


@pytest.fixture
def written(tmp_path):
    write_plan(tmp_path, plan_in(tmp_path))
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_id,", "id,", "expected the columns image_id, metric"),
        ("c3,aesthetic", "a1,aesthetic", "image_id a1 occurs 2 times"),
        ("c3,aesthetic", ",aesthetic", "row 4: no image_id"),
        ("c3,aesthetic,plain", "c3,,", "row 4: no metric, person"),
        (",300,", ",3OO,", "row 2: .*3OO(.|\n)*row 3: .*3OO"),
        (",a1\r\n", ",a9\r\n", "image_id b2 repeats a9, which is not an image of face_similarity"),
        (",a1\r\n", ",c3\r\n", "image_id b2 repeats c3, which is not an image of face_similarity"),
        (",a1\r\n", ",b2\r\n", "image_id b2 repeats b2"),
        ("images/", "images\0", r"row 4: found '.*', expected a path|damaged"),
        (",p00-s0,", ",", "row 2: found too few or too many columns"),
        (",p00-s0,", ",p00-s0,,", "row 3: found too few or too many columns"),
        ("images/", "p" * 256 + "/", "row 4: found 'ppp.*', expected a path"),
        ("images/", "images/" * 600, "row 4: found '.*', expected a path"),
        ("p00-s0", "p" * 200_000, "field larger than field limit"),
    ],
)
def test_a_damaged_table_says_where(written, old, new, message):
    change(written / TASKS, old, new)
    with pytest.raises(UserError, match=message) as error:
        read_plan(written)
    assert str(written / TASKS) in str(error.value)


def test_all_damage_is_said_at_once(written):
    change(written / TASKS, "c3,aesthetic", ",aesthetic")
    change(written / TASKS, ",300,", ",x,")
    with pytest.raises(UserError, match=r"row 2: (.|\n)*row 3: (.|\n)*row 4: "):
        read_plan(written)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_table_cut_between_two_rows_is_damaged(written, rows):
    lines = (written / TASKS).read_bytes().splitlines(True)
    (written / TASKS).write_bytes(b"".join(lines[: rows + 1]))
    with pytest.raises(UserError, match="at least one row" if rows == 0 else f"found {rows} rows, expected 3"):
        read_plan(written)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "found format 2, expected 1"),
        ("seed", "7", "damaged"),
        ("seed", 1.5, "damaged"),
        ("seed", True, "damaged"),
        ("seed", float("inf"), "damaged"),
        ("tasks", None, "damaged"),
        ("references", [["plain", "photo"]], "damaged"),
        ("references", {"plain": "photo"}, "damaged"),
        ("references", {"plain": [3]}, "damaged"),
        ("references", {"plain": ["a\0b"]}, "damaged"),
        ("references", {"plain": ["\ud800"]}, "damaged"),
        ("references", None, "damaged"),
    ],
)
def test_a_damaged_description_is_an_error(written, key, value, message):
    content = json.loads((written / PLAN).read_text())
    (written / PLAN).write_text(json.dumps({**content, key: value}))
    with pytest.raises(UserError, match=message) as error:
        read_plan(written)
    assert str(written / PLAN) in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '{"format": 1}', "[" * 100_000, "\ufeff{}"])
def test_a_description_that_is_none_is_an_error(written, content):
    (written / PLAN).write_text(content)
    with pytest.raises(UserError, match=r"plan\.json: (damaged|not valid JSON)"):
        read_plan(written)


def test_a_folder_without_a_plan_says_what_is_expected(written):
    with pytest.raises(
        UserError, match=r"found no plan\.json, expected a folder written by `finetune-monitor label plan`"
    ):
        read_plan(written / "nowhere")
    (written / TASKS).unlink()
    with pytest.raises(UserError, match=r"tasks\.csv: No such file"):
        read_plan(written)
    (written / TASKS).mkdir()
    with pytest.raises(UserError, match=r"tasks\.csv: Is a directory"):
        read_plan(written)
    (written / PLAN).unlink()
    (written / PLAN).mkdir()
    with pytest.raises(UserError, match=r"plan\.json: cannot read it \(Is a directory\)"):
        read_plan(written)


def reads_or_refuses(folder: Path) -> None:
    try:
        plan = read_plan(folder)
    except UserError:
        return
    assert plan.tasks
    assert len(plan.by_id) == len(plan.tasks)
    for task in plan.tasks:
        assert task.image_id
        assert task.file.is_absolute()
        task.file.exists()  # the file system takes the name
        assert task.repeat_of is None or plan.by_id[task.repeat_of].metric == task.metric


@pytest.mark.parametrize("name", [TASKS, PLAN])
def test_a_file_cut_at_any_byte_is_read_or_refused(written, name):
    whole = (written / name).read_bytes()
    for cut in range(len(whole)):
        (written / name).write_bytes(whole[:cut])
        reads_or_refuses(written)


DAMAGE = [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"[", b"{", b"9" * 5000]
EDITS = st.tuples(st.floats(0, 1), st.integers(0, 8), st.one_of(st.binary(max_size=4), st.sampled_from(DAMAGE)))


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([TASKS, PLAN]), edits=st.lists(EDITS, min_size=1, max_size=4))
def test_altered_bytes_are_read_or_refused(written, name, edits):
    whole = (written / name).read_bytes()
    content = whole
    for place, length, damage in edits:
        start = int(place * len(content))
        content = content[:start] + damage + content[start + length :]
    (written / name).write_bytes(content)
    try:
        reads_or_refuses(written)
    finally:
        (written / name).write_bytes(whole)


def test_the_columns_keep_the_contract(written):
    header = (written / TASKS).read_text().splitlines()[0]
    assert header == ",".join(TASK_COLUMNS) == "image_id,metric,person,file,sha256,run,step,cell,repeat_of"
    assert json.loads((written / PLAN).read_text()).keys() == {
        "format",
        "made_by",
        "seed",
        "tasks",
        "references",
        "sha256",
    }
