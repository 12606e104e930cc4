"""Reading run directories for a page: whole ones, half-written ones, damaged ones."""

import json
import math
import os
from pathlib import Path

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report.page_runs import Reference, distinct_tails, photo_count, read_runs
from support.runs import GRID, NOTICE, RUN, evaluation, write_run

SHA = "ab" * 32


def change(run_dir: Path, **content: object) -> None:
    """Put these keys into `run.json`; None takes one away."""
    path = run_dir / "run.json"
    found = {**json.loads(path.read_text()), **content}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def test_a_run_that_has_ended(tmp_path):
    write_run(tmp_path / "ana", {0: 0.1, 50: 0.6, 100: 0.5}, StopReason.PATIENCE)
    [run], unreadable = read_runs([tmp_path / "ana"])
    assert (run.name, run.folder, unreadable) == ("ana", tmp_path / "ana", [])
    assert [found.step for found in run.evaluations] == [0, 50, 100]
    assert [cell.id for cell in run.cells] == [cell.id for cell in GRID.cells]
    assert run.sampling == "default sampler, 3 steps, guidance 7.5, the model's own size"
    assert run.notices == (NOTICE,)
    assert run.measured_with == {"face_similarity": {"recognizer": "vggface2"}}
    assert (run.ending.ended, run.ending.reason, run.ending.why) == (True, "patience", "the score stopped improving")
    assert (run.ending.best_metric, run.ending.best_step) == ("face_similarity", 50)


def test_a_run_that_goes_on_or_was_killed(tmp_path):
    record = RunRecord(tmp_path / "ana", GRID)
    record.begin(RUN, None, None)
    record.append(evaluation(0))
    [run], _ = read_runs([tmp_path / "ana"])
    assert (run.ending.ended, run.ending.reason, run.ending.why) == (False, None, "in progress, or killed")
    assert run.ending.best_metric == "face_similarity"
    record.close()


def test_a_run_without_an_evaluation_yet(tmp_path):
    record = RunRecord(tmp_path / "ana", GRID)
    record.begin(RUN, None, None)
    record.close()
    [run], _ = read_runs([tmp_path / "ana"])
    assert (run.evaluations, run.ending.best_step) == ((), None)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("file", "problem"),
    [("evaluations.jsonl", "the last line is truncated"), ("images.jsonl", "step 50 has only 3 of 4 image rows")],
)
def test_what_a_crash_cut_short_is_a_problem_of_the_run(tmp_path, file, problem):
    write_run(tmp_path / "ana", {0: 0.1, 50: 0.6})
    tear(tmp_path / "ana" / file)
    [run], _ = read_runs([tmp_path / "ana"])
    assert [found.step for found in run.evaluations] == [0]
    assert problem in " ".join(run.problems)


def spoil_row(run_dir: Path) -> None:
    lines = (run_dir / "images.jsonl").read_text().splitlines()
    (run_dir / "images.jsonl").write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")


def rename_step(run_dir: Path, old: int, new: int) -> None:
    for name in ("evaluations.jsonl", "images.jsonl"):
        text = (run_dir / name).read_text()
        (run_dir / name).write_text(text.replace(f'"step": {old},', f'"step": {new},'))


DAMAGES = {
    "images.jsonl:2: damaged row": spoil_row,
    "found no run.json": lambda run_dir: (run_dir / "run.json").unlink(),
    "not valid JSON": lambda run_dir: (run_dir / "run.json").write_text("{"),
    "expected an object": lambda run_dir: (run_dir / "run.json").write_text("[]"),
    "cannot read it": lambda run_dir: [(run_dir / "run.json").unlink(), (run_dir / "run.json").mkdir()],
    "grid: damaged (it is missing": lambda run_dir: change(run_dir, grid=None),
    "grid: damaged (TypeError(\"found '../../b', expected a whole number": lambda run_dir: change(
        run_dir, grid={"prompts": ["a"], "seeds": ["../../b"]}
    ),
    "grid: damaged (TypeError('found 1, expected text": lambda run_dir: change(
        run_dir, grid={"prompts": [1], "seeds": [0]}
    ),
    "damaged (ValueError('PromptGrid.prompts": lambda run_dir: change(run_dir, grid={"prompts": [], "seeds": [0]}),
    "evaluations.jsonl:2: damaged row (TypeError('found 1000": lambda run_dir: rename_step(run_dir, 50, 10**300),
    "evaluations.jsonl:2: damaged row (ValueError('found step -50": lambda run_dir: rename_step(run_dir, 50, -50),
    "grid: damaged (TypeError('found 1000": lambda run_dir: change(
        run_dir, grid={"prompts": ["a"], "seeds": [10**300]}
    ),
    "metrics: damaged (KeyError('bounds'": lambda run_dir: change(
        run_dir, metrics={"aesthetic": {"higher_is_better": True}}
    ),
    "damaged (AttributeError": lambda run_dir: change(run_dir, weights=["a"]),
    "damaged (ValueError(\"references: found '../../../etc'": lambda run_dir: change(
        run_dir, weights={"face_similarity": {"references": [{"file": "a.png", "sha256": "../../../etc"}]}}
    ),
}


@pytest.mark.parametrize("found", DAMAGES)
def test_a_damaged_run_does_not_take_the_others_with_it(tmp_path, found):
    for name in ("ana", "ben"):
        write_run(tmp_path / name, {0: 0.1, 50: 0.6})
    DAMAGES[found](tmp_path / "ana")
    runs, [unreadable] = read_runs([tmp_path / "ana", tmp_path / "ben"])
    assert [run.name for run in runs] == ["ben"]
    assert unreadable.folder == tmp_path / "ana"
    assert found in unreadable.problem


def test_not_one_run_is_an_error_that_names_them_all(tmp_path):
    with pytest.raises(UserError, match=r"(?s)at least one:.*a: found no run.json.*b: found no run.json"):
        read_runs([tmp_path / "a", tmp_path / "b"])


def test_a_run_named_twice_is_read_once(tmp_path, monkeypatch):
    write_run(tmp_path / "ana", {0: 0.1})
    (tmp_path / "link").symlink_to("ana")
    monkeypatch.chdir(tmp_path)
    runs, _ = read_runs([Path("ana"), tmp_path / "ana", Path("./x/../ana"), Path("link")])
    assert [run.folder for run in runs] == [Path("ana")]
    assert runs[0].id == read_runs([tmp_path / "link"])[0][0].id


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/ana"], ["ana"]),
        (["/runs/ana", "/runs/ben"], ["ana", "ben"]),
        (["/x/ana", "/y/ana", "/y/ben"], ["x/ana", "y/ana", "ben"]),
        (["/a/run", "/a/b/run", "/run"], ["a/run", "b/run", "/run"]),
    ],
)
def test_names_are_the_shortest_distinct_tails(paths, names):
    found = distinct_tails([Path(path) for path in paths])
    assert [found[Path(path)] for path in paths] == names


def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"ana\xff \"'<b>\n")
    write_run(folder, {0: 0.1})
    [run], _ = read_runs([folder])
    assert run.name == folder.name


def test_references_used_and_held_out(tmp_path):
    write_run(tmp_path / "ana", {0: 0.1})
    used = [{"file": "photos/01.png", "sha256": SHA}, {"file": "photos/02.png", "sha256": SHA[::-1]}]
    held_out = [{"file": "photos/03.png", "sha256": "cd" * 32}]
    change(tmp_path / "ana", weights={"face_similarity": {"references": used, "held_out": held_out}})
    [run], _ = read_runs([tmp_path / "ana"])
    assert run.references == (
        Reference("used", "photos/01.png", SHA),
        Reference("used", "photos/02.png", SHA[::-1]),
        Reference("held_out", "photos/03.png", "cd" * 32),
    )
    assert photo_count(run) is None  # of a loop of the user's own nobody knows
    change(tmp_path / "ana", hparams={"data.instance_images": "photos", "data.instance_count": "None"})
    assert photo_count(read_runs([tmp_path / "ana"])[0][0]) == 2


def test_a_metric_without_a_bound_is_shown(tmp_path):
    write_run(tmp_path / "ana", {0: 0.1})
    change(tmp_path / "ana", metrics={"aesthetic": {"higher_is_better": True, "bounds": [0, None]}})
    assert read_runs([tmp_path / "ana"])[0][0].columns["aesthetic"].bounds == (0, math.inf)


def test_scores_that_depend_on_other_photos_are_on_another_scale(tmp_path):
    for name, sha in (("ana", SHA), ("ben", SHA[::-1])):
        write_run(tmp_path / name, {0: 0.1})
        photos = {"references": [{"file": "01.png", "sha256": sha}]}
        change(tmp_path / name, weights={"face_similarity": photos})
    first, second = (run.scales for run in read_runs([tmp_path / "ana", tmp_path / "ben"])[0])
    assert first["face_similarity"] != second["face_similarity"]
    assert first["faces_found"] == second["faces_found"]
    assert first["aesthetic"] == second["aesthetic"]


@pytest.mark.parametrize(("found", "count"), [({"data.instance_count": 5}, 5), ({"data.instance_count": "None"}, None)])
def test_the_number_of_photos(tmp_path, found, count):
    write_run(tmp_path / "ana", {0: 0.1})
    change(tmp_path / "ana", hparams=found)
    assert photo_count(read_runs([tmp_path / "ana"])[0][0]) == count


def naming_a_photo(tmp_path, **column):
    """A run whose metric names a photo for each image; another metric has the same photos in another order."""
    write_run(tmp_path / "ana", {0: 0.1})
    photos = [{"file": f"{name}.png", "sha256": name * 64} for name in "abc"]
    weights = {"face_similarity": {"references": photos[::-1]}, "twins": {"references": photos, "held_out": photos[:1]}}
    columns = {**RUN["columns"], "twin": {"higher_is_better": None, "role": "note", "metric": "twins", **column}}
    change(tmp_path / "ana", columns=columns, weights=weights)
    return read_runs([tmp_path / "ana"])[0][0]


def test_the_photos_that_a_column_names_are_those_of_its_own_metric_and_used(tmp_path):
    run = naming_a_photo(tmp_path, likeness="closeness")
    assert (run.columns["twin"].role, run.columns["twin"].likeness) == ("note", "closeness")
    assert [run.references[place].file for place in run.nearest["twin"]] == ["a.png", "b.png", "c.png"]
    assert {run.references[place].kind for place in run.nearest["twin"]} == {"used"}


def test_a_note_whose_values_are_no_places_names_no_photo(tmp_path):
    assert naming_a_photo(tmp_path).nearest == {}
