"""Scores come from the records of the runs that generated the images, or from a table, by names matched with care."""

import json
import math
from pathlib import Path

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.studies.agreement.model_scores import changed_files, matched, read_scores, recorded_scores
from finetune_monitor.studies.labeling.tasks import Task
from support.runs import write_run


def task(run: Path, step: int, cell: str, image_id: str, metric: str = "face_similarity") -> Task:
    file = run / f"images/step-{step:06d}/{cell}.png"
    return Task(image_id, metric, "ana", file, sha256(file) if file.exists() else "", run, step, cell)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", {0: 0.1, 300: 0.5})
    return tmp_path / "run"


def edit_run(run: Path, **changes) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, **changes}))


def test_recorded_scores_are_those_of_step_and_cell(run):
    tasks = [task(run, 0, "p00-s7", "a"), task(run, 300, "p00-s0", "b"), task(run, 600, "p00-s0", "c")]
    found = recorded_scores(tasks, "face_similarity")
    assert found.by_image == pytest.approx({"a": 0.11, "b": 0.5, "c": math.nan}, nan_ok=True)
    assert found.weights == {"recognizer": "vggface2"}


def test_runs_that_were_measured_otherwise_are_not_compared(run, tmp_path):
    other = tmp_path / "other"
    write_run(other, {0: 0.2})
    edit_run(other, weights={"face_similarity": {"recognizer": "casia-webface"}})
    with pytest.raises(UserError, match=r"run and .*other were measured with different weights"):
        recorded_scores([task(run, 0, "p00-s0", "a"), task(other, 0, "p00-s0", "b")], "face_similarity")


def test_every_run_that_does_not_fit_is_named_at_once(run, tmp_path):
    lower, without = tmp_path / "lower", tmp_path / "without"
    for folder in (lower, without):
        write_run(folder, {0: 0.2})
    edit_run(lower, metrics={"face_similarity": {"higher_is_better": False, "bounds": [-1, 1]}})
    edit_run(without, metrics={"aesthetic": {"higher_is_better": True, "bounds": [0, 10]}})
    tasks = [task(folder, 0, "p00-s0", folder.name) for folder in (run, lower, without, tmp_path / "gone")]
    with pytest.raises(UserError) as error:
        recorded_scores(tasks, "face_similarity")
    message = str(error.value)
    assert "lower: a lower face_similarity is better" in message
    assert "without: has no scores of face_similarity; found aesthetic" in message
    assert "gone: found no run.json" in message
    assert f"{run}:" not in message


def test_images_that_changed_since_they_were_planned_are_found(run):
    tasks = [task(run, 0, "p00-s0", "same"), task(run, 0, "p00-s7", "changed"), task(run, 300, "p00-s0", "gone")]
    tasks[1].file.write_bytes(b"another image")
    tasks[2].file.unlink()
    assert changed_files(tasks) == {"changed", "gone"}


@pytest.mark.parametrize(
    ("header", "metric", "expected"),
    [
        ("image,nima", "appeal", 1.5),
        ("image,appeal,realism", "appeal", 1.5),
        ("Image;Appeal;person", "appeal", 1.5),
        ("filename\tscore", "anything", 1.5),
    ],
)
def test_the_column_of_scores_is_the_metrics_or_the_only_other_one(tmp_path, header, metric, expected):
    separator = next(char for char in ",;\t" if char in header)
    row = separator.join(["a.png", "1.5", "9.0"][: header.count(separator) + 1])
    (tmp_path / "scores.csv").write_text(f"{header}\n{row}\n")
    assert read_scores(tmp_path / "scores.csv", metric).by_image == {"a.png": expected}


@pytest.mark.parametrize("header", ["image,a,b", "a,b", "image,file,a", "image", "image,person"])
def test_columns_that_are_missing_or_ambiguous_are_refused(tmp_path, header):
    (tmp_path / "scores.csv").write_text(f"{header}\n")
    with pytest.raises(UserError, match=r"found the columns .* expected one column of images"):
        read_scores(tmp_path / "scores.csv", "appeal")


def test_an_empty_cell_is_an_image_that_could_not_be_measured(tmp_path):
    (tmp_path / "scores.csv").write_text("image,score,person\na,,ana\nb,0.5,ben\n")
    found = read_scores(tmp_path / "scores.csv", "appeal")
    assert found.by_image == pytest.approx({"a": math.nan, "b": 0.5}, nan_ok=True)
    assert found.persons == {"a": "ana", "b": "ben"}
    assert found.weights is None


def test_an_image_shows_one_person(tmp_path):
    (tmp_path / "scores.csv").write_text("image,score,person\na,1,ana\na,1,\na,1,ben\n")
    with pytest.raises(UserError, match="line 4: found a second, different person for 'a'"):
        read_scores(tmp_path / "scores.csv", "appeal")


def test_rows_that_do_not_fit_are_counted_and_the_first_are_named(tmp_path):
    (tmp_path / "scores.csv").write_text("image,score\na,1\na,1\nb,x\nc,inf\na,2\nd\n")
    with pytest.raises(UserError) as error:
        read_scores(tmp_path / "scores.csv", "appeal")
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'scores.csv'}: 4 rows are not usable; the first are:",
        "  - line 4: found 'x', expected a number",
        "  - line 5: found 'inf', expected a number of at most 1e+100",
        "  - line 6: found a second, different score for 'a'",
    ]


def test_a_table_may_name_an_image_by_its_id_its_path_or_the_end_of_that(tmp_path, run):
    tasks = {name: task(run, 0, cell, name) for name, cell in (("a", "p00-s0"), ("b", "p00-s7"), ("c", "p01-s0"))}
    rows = f"a,1\n{tasks['b'].file},2\nstep-000000/p01-s0.png,3\n"
    (tmp_path / "scores.csv").write_text("image,score\n" + rows)
    found = matched(read_scores(tmp_path / "scores.csv", "x"), ["a", "b", "c", "d"], tasks)
    assert found.by_image == pytest.approx({"a": 1, "b": 2, "c": 3, "d": math.nan}, nan_ok=True)


@pytest.mark.parametrize(
    ("rows", "images", "expected"),
    [
        (["ben/1.png", "ben/2.png"], ["ana/1.png", "ben/2.png"], [math.nan, 1]),  # another folder is another image
        (["x/1.png", "y/1.png", "z/2.png"], ["1.png", "2.png"], [math.nan, 2]),  # two rows would do, so none does
        (["1.png", "2.png"], ["x/1.png", "y/2.png"], [0, 1]),
        (["x/1.png", "1.png"], ["x/1.png"], [0]),
        (["./x\\1.png"], ["x/1.png"], [0]),
    ],
)
def test_names_match_where_one_ends_with_the_whole_of_the_other(tmp_path, rows, images, expected):
    lines = [f"{name},{value}" for value, name in enumerate(rows)]
    (tmp_path / "scores.csv").write_text("image,score\n" + "\n".join(lines))
    found = matched(read_scores(tmp_path / "scores.csv", "m"), images, {})
    assert list(found.by_image.values()) == pytest.approx(expected, nan_ok=True)


def test_a_score_that_fits_two_images_is_refused(tmp_path):
    (tmp_path / "scores.csv").write_text("image,score\n1.png,1\n")
    with pytest.raises(UserError, match=r"the score for '1\.png' matches 'ana/1\.png', 'ben/1\.png'"):
        matched(read_scores(tmp_path / "scores.csv", "m"), ["ana/1.png", "ben/1.png"], {})


def test_names_that_have_nothing_in_common_are_shown(tmp_path):
    (tmp_path / "scores.csv").write_text("image,score\nx,1\n")
    with pytest.raises(
        UserError, match="none of the 1 labeled images has a score; looked for 'a', but the scores are for"
    ):
        matched(read_scores(tmp_path / "scores.csv", "m"), ["a"], {})
