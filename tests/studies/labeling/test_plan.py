"""What people will rate: fair shares for both metrics, each image once, and nothing left out without a word."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import list_images
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.studies.labeling.plan import AESTHETIC, SIMILARITY, DrawnPlan, draw_plan
from finetune_monitor.studies.labeling.tasks import PLAN, TASKS, Task, read_plan
from support import needs

BOTH = (SIMILARITY, AESTHETIC)


def image(key: object) -> Image.Image:
    """The same noise for the same key, other noise for another."""
    return Image.fromarray(np.random.default_rng(list(repr(key).encode())).integers(0, 255, (4, 4, 3), dtype=np.uint8))


def write_images(folder: Path, number: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        image((str(folder), index)).save(folder / f"{index:03d}.png")
    return list_images(folder)


def described(photos: Iterable[Path]) -> list[dict[str, str]]:
    return [{"file": str(photo), "sha256": sha256(photo)} for photo in photos]


def write_run(
    folder: Path,
    photos: Iterable[Path] = (),
    cells: int = 8,
    steps: Iterable[int] = (0, 300, 600),
    metrics: Iterable[str] = BOTH,
    model: str | None = None,
    **options: Any,
) -> Path:
    """A run with its reference photos; step 0 shows what `model` draws, the later steps what the run made of it."""
    grid = PromptGrid(["a photo"], seeds=range(cells), steps=2, **options)
    record = RunRecord(folder, grid)
    record.begin({"weights": {SIMILARITY: {"references": described(photos)}}}, None, None)
    for step in steps:
        shown = [image((model if model and step == 0 else str(folder), step, cell.id)) for cell in grid.cells]
        scores = dict.fromkeys(metrics, 0.5)
        files = record.write_images(step, shown)
        images = tuple(
            ScoredImage(cell, file, {"probe_similarity": 0.1} if cell.is_probe else scores)
            for cell, file in zip(grid.cells, files, strict=True)
        )
        record.append(Evaluation(step, None, 0.0, summarize(images, {}), images))
    record.close()
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    write_images(tmp_path / "photos/anna", 10)
    return tmp_path / "photos/anna"


@pytest.fixture
def run(tmp_path, photos) -> Path:
    return write_run(tmp_path / "runs/a", list_images(photos))


def shares(drawn: DrawnPlan) -> dict[str, Counter]:
    """Metric to (run, step) to number of tasks, repeats left aside."""
    found: dict[str, Counter] = {}
    for task in first_time(drawn):
        found.setdefault(task.metric, Counter())[task.run, task.step] += 1
    return found


def first_time(drawn: DrawnPlan) -> list[Task]:
    return [task for task in drawn.plan.tasks if task.repeat_of is None]


def refused(*arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        draw_plan(*arguments, **options)
    return str(error.value)


# --- the draw


@pytest.mark.slow
@pytest.mark.parametrize("per_person", [2, 3, 7, 12, 17])
def test_every_step_gives_its_share_to_both_halves(tmp_path, run, photos, per_person):
    other = write_run(tmp_path / "runs/b", list_images(photos)[:5])
    drawn = draw_plan([run, other], tmp_path / "plan", per_person, repeats=0)
    assert drawn.counts == {("anna", SIMILARITY): (per_person + 1) // 2, ("anna", AESTHETIC): per_person // 2}
    assert len({task.file for task in drawn.plan.tasks}) == per_person  # no image in both halves
    for share in shares(drawn).values():
        numbers = [share[folder, step] for folder in (run, other) for step in (0, 300, 600)]
        assert max(numbers) - min(numbers) <= 1
    assert drawn.notes == ()


@cache
def small_run(root: Path, number: int, cells: int) -> Path:
    """One evaluation of the same person, made once for all examples."""
    photos = list_images(root / "p") if (root / "p").is_dir() else write_images(root / "p", 1)
    return write_run(root / f"run {number} {cells}", photos, cells, steps=[0])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    per_person=st.integers(2, 30),
    seed=st.integers(-5, 5),
)
def test_shares_are_fair_whatever_there_is(tmp_path_factory, sizes, per_person, seed):
    root = tmp_path_factory.getbasetemp() / "fair"
    runs = [small_run(root, n, cells) for n, cells in enumerate(sizes)]
    drawn = draw_plan(runs, tmp_path_factory.mktemp("plan"), per_person, repeats=0, seed=seed)
    number = min(per_person, sum(sizes))
    assert [drawn.counts["p", metric] for metric in BOTH] == [(number + 1) // 2, number // 2]
    assert len({task.file for task in drawn.plan.tasks}) == number
    found = shares(drawn)
    for metric in BOTH:
        given = {run: found.get(metric, Counter())[run, 0] for run in runs}
        left = [run for run, size in zip(runs, sizes, strict=True) if sum(found[m][run, 0] for m in found) < size]
        assert all(given[run] >= max(given.values()) - 1 for run in left)
    assert all(abs(found[SIMILARITY][run, 0] - found.get(AESTHETIC, Counter())[run, 0]) <= 1 for run in runs)
    assert bool(drawn.notes) == (sum(sizes) < per_person)


def test_too_few_images_are_all_taken_and_said(tmp_path, run):
    drawn = draw_plan([run], tmp_path / "plan")
    assert drawn.counts == {("anna", SIMILARITY): 12, ("anna", AESTHETIC): 12}
    [note] = drawn.notes
    assert note == "anna: found fewer than 128 images: 12 for face_similarity and 12 for aesthetic"


@pytest.mark.parametrize("metric", BOTH)
def test_one_metric_alone_gets_all_images(tmp_path, photos, metric):
    run = write_run(tmp_path / "run", list_images(photos), metrics=[metric])
    drawn = draw_plan([run], tmp_path / "plan", 20)
    assert drawn.counts == {("anna", metric): 20}
    assert set(drawn.plan.references) == ({"anna"} if metric == SIMILARITY else set())


def test_an_image_is_rated_only_for_what_was_scored(tmp_path, photos):
    runs = [
        write_run(tmp_path / "both", list_images(photos), steps=[0], cells=8),
        write_run(tmp_path / "beauty", list_images(photos), steps=[0], cells=8, metrics=[AESTHETIC]),
    ]
    drawn = draw_plan(runs, tmp_path / "plan", 12, repeats=0)
    assert drawn.counts == {("anna", SIMILARITY): 6, ("anna", AESTHETIC): 6}
    assert set(shares(drawn)[SIMILARITY]) == {(runs[0], 0)}


def test_images_of_prompts_that_do_not_name_the_subject_are_not_rated(tmp_path, photos):
    run = write_run(tmp_path / "run", list_images(photos), steps=[0], probe_prompts=("a man",), images_per_probe=8)
    drawn = draw_plan([run], tmp_path / "plan", 16, repeats=0)
    assert drawn.counts == {("anna", SIMILARITY): 4, ("anna", AESTHETIC): 4}
    assert {task.cell[0] for task in drawn.plan.tasks} == {"p"}
    assert drawn.notes == ("anna: found fewer than 16 images: 4 for face_similarity and 4 for aesthetic",)


def test_tasks_say_where_the_score_is(tmp_path, run, photos):
    drawn = draw_plan([run], tmp_path / "plan", 10)
    for task in drawn.plan.tasks:
        assert (task.run, task.person, task.sha256) == (run, "anna", sha256(task.file))
        assert task.file == run / f"images/step-{task.step:06d}" / f"{task.cell}.png"
    assert drawn.plan.references == {"anna": tuple(list_images(photos))}
    assert drawn.plan == read_plan(tmp_path / "plan")


def test_nothing_is_copied(tmp_path, run):
    draw_plan([run], tmp_path / "plan")
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == [PLAN, TASKS]


def test_ids_and_order_tell_nothing(tmp_path, photos):
    runs = [write_run(tmp_path / f"runs/{n}", list_images(photos), cells=40) for n in "ab"]
    drawn = draw_plan(runs, tmp_path / "plan", 200)
    ids = [task.image_id for task in drawn.plan.tasks]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch("[a-f][0-9a-f]{9}", name) for name in ids)
    ranks = np.arange(len(ids))
    for told in (
        [task.metric == SIMILARITY for task in drawn.plan.tasks],
        [task.step for task in drawn.plan.tasks],
        [task.repeat_of is not None for task in drawn.plan.tasks],
        [task.run == runs[0] for task in drawn.plan.tasks],
    ):
        assert abs(np.corrcoef(ranks, told)[0, 1]) < 0.25  # four standard deviations at 200


def test_the_seed_decides_the_draw(tmp_path, run):
    written = {}
    for seed in (0, 1, -1):
        for again in "ab":
            draw_plan([run], tmp_path / again, 8, seed=seed)
            written[seed, again] = [(tmp_path / again / name).read_bytes() for name in (TASKS, PLAN)]
            shutil.rmtree(tmp_path / again)
        assert written[seed, "a"] == written[seed, "b"]
    assert len({content[0] for content in written.values()}) == 3
    assert json.loads(written[-1, "a"][1])["seed"] == -1


PROCESS = """
import sys
from pathlib import Path
from typing import Any
from finetune_monitor.studies.labeling.plan import draw_plan
draw_plan([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]), 11, 0.3)
"""


@pytest.mark.slow
def test_the_draw_is_the_same_in_every_process(tmp_path, run, photos):
    """Nothing hangs on the order of a set, which Python changes from one process to the next."""
    other = write_run(tmp_path / "runs/b", list_images(photos), model="same")
    third = write_run(tmp_path / "runs/c", model="same")
    tables = set()
    for number in range(3):
        command = [sys.executable, "-c", PROCESS, str(tmp_path / "plan"), *map(str, (run, other, third))]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": str(number)})
        tables.add((tmp_path / "plan" / TASKS).read_bytes())
        shutil.rmtree(tmp_path / "plan")
    assert len(tables) == 1


@pytest.mark.parametrize(
    ("images", "share", "expected"),
    [(24, 0.05, 1), (18, 0.05, 0), (20, 0.05, 1), (24, 0.25, 3), (24, 0.5, 6), (24, 0, 0)],
)
def test_repeats_are_shown_under_another_id(tmp_path, run, images, share, expected):
    drawn = draw_plan([run], tmp_path / "plan", images, share)
    by_id = drawn.plan.by_id
    repeats = [task for task in drawn.plan.tasks if task.repeat_of]
    assert Counter(task.metric for task in repeats) == Counter({metric: expected for metric in BOTH if expected})
    assert sum(drawn.counts.values()) == images  # repeats are not counted
    for task in repeats:
        first = by_id[task.repeat_of]
        assert (first.repeat_of, first.metric, first.file) == (None, task.metric, task.file)
    assert len({task.repeat_of for task in repeats}) == len(repeats)


def test_repeats_are_spread_over_the_persons(tmp_path):
    for person in "abcd":
        write_images(tmp_path / "people" / person, 20)
    drawn = draw_plan([tmp_path / "people"], tmp_path / "plan", 20, 0.1)
    assert Counter(task.person for task in drawn.plan.tasks if task.repeat_of) == dict.fromkeys("abcd", 2)


# --- the same image, missing images


def test_images_that_two_runs_share_stay_with_the_one_that_has_fewer(tmp_path, photos):
    runs = [
        write_run(tmp_path / f"runs/{cells}", list_images(photos), cells, steps=[0], model="same") for cells in (8, 16)
    ]
    drawn = draw_plan(runs, tmp_path / "plan", repeats=0)
    assert Counter(task.run for task in drawn.plan.tasks) == dict.fromkeys(runs, 8)


def test_the_same_image_of_two_runs_of_a_person_counts_once(tmp_path, photos):
    runs = [write_run(tmp_path / f"runs/{n}", list_images(photos), model="same") for n in "ab"]
    drawn = draw_plan(runs, tmp_path / "plan", repeats=0)
    assert sum(drawn.counts.values()) == 40
    assert len({task.sha256 for task in drawn.plan.tasks}) == 40
    taken = Counter((task.run, task.step) for task in drawn.plan.tasks)
    assert [taken[run, 0] for run in runs] == [4, 4]
    assert drawn.notes[0] == "anna: 8 images are identical to others and are left out"


def test_the_same_image_of_several_persons_is_rated_once_for_beauty_and_for_each_likeness(tmp_path):
    persons = [f"p{n}" for n in range(4)]
    runs = [
        write_run(tmp_path / f"runs/{name}", write_images(tmp_path / "photos" / name, 2), model="same", steps=[0])
        for name in persons
    ]
    drawn = draw_plan(runs, tmp_path / "plan", repeats=0)
    beauty = [task for task in drawn.plan.tasks if task.metric == AESTHETIC]
    assert len(beauty) == len({task.sha256 for task in beauty}) == 8
    assert Counter(task.person for task in beauty) == dict.fromkeys(persons, 2)
    likeness = [task for task in drawn.plan.tasks if task.metric == SIMILARITY]
    assert Counter(task.person for task in likeness) == dict.fromkeys(persons, 6)
    assert len({(task.person, task.sha256) for task in drawn.plan.tasks}) == len(drawn.plan.tasks) == 32
    assert drawn.notes[0] == "8 images are the same for several people; each is rated once for aesthetic"


def test_a_person_may_be_left_with_nothing(tmp_path):
    [only] = write_images(tmp_path / "people/anna", 1)
    shutil.copytree(only.parent, tmp_path / "people/ben")
    drawn = draw_plan([tmp_path / "people"], tmp_path / "plan")
    [(person, _)] = drawn.counts
    other = {"anna": "ben", "ben": "anna"}[person]
    assert f"{other}: found fewer than 128 images: none of its own" in drawn.notes


def test_an_image_without_a_file_is_left_out(tmp_path, run):
    for cell in ("p00-s0", "p00-s1"):
        (run / f"images/step-000300/{cell}.png").unlink()
    rows = [json.loads(line) for line in (run / "images.jsonl").read_text().splitlines()]
    rows[-1]["file"] = None
    (run / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = draw_plan([run], tmp_path / "plan")
    assert sum(drawn.counts.values()) == 21
    assert drawn.notes[0] == f"{run}: 3 of 24 images have no file and are left out"


def test_an_unreadable_image_is_replaced_by_another(tmp_path, run):
    for path in (run / "images/step-000300").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    drawn = draw_plan([run], tmp_path / "plan", 16)
    assert sum(drawn.counts.values()) == 16
    assert {task.step for task in drawn.plan.tasks} == {0, 600}
    [note] = drawn.notes
    assert re.match(r"anna: \d images cannot be read and are left out: .*step-000300.*damaged", note)


def test_only_what_is_drawn_is_opened(tmp_path):
    folder = tmp_path / "anna"
    for index, file in enumerate(write_images(folder, 60)):
        file.write_bytes(file.read_bytes() + b"x" * 100 * index)  # each of another size
    opened = set()
    sys.addaudithook(lambda event, found: opened.add(str(found[0])) if event == "open" and not done else None)
    done = []
    draw_plan([folder], tmp_path / "plan", 5)
    done.append(True)
    assert len({name for name in opened if name.startswith(str(folder))}) == 5


def test_images_none_of_which_can_be_read_are_no_plan(tmp_path):
    folder = tmp_path / "anna"
    for file in write_images(folder, 3):
        file.write_text(f"no image {file}")
    message = refused([folder], tmp_path / "plan")
    assert "found no image that can be rated" in message
    assert "3 images cannot be read" in message
    assert not (tmp_path / "plan").exists()


# --- persons and photos


def test_runs_that_share_a_photo_show_one_person(tmp_path):
    """Also where two of them share none, but each does with a third."""
    photos = write_images(tmp_path / "photos/anna", 6)
    others = write_images(tmp_path / "photos/ben", 2)
    runs = [
        write_run(tmp_path / f"runs/{name}", shown)
        for name, shown in {"a": photos[:3], "b": others, "c": photos[3:], "d": photos[2:4]}.items()
    ]
    drawn = draw_plan(runs, tmp_path / "plan", 6)
    persons = {task.run.name: task.person for task in drawn.plan.tasks}
    assert persons == {"a": "anna", "b": "ben", "c": "anna", "d": "anna"}
    assert {name: set(found) for name, found in drawn.plan.references.items()} == {
        "anna": set(photos),
        "ben": set(others),
    }


def test_a_moved_copy_of_the_photos_shows_the_same_person(tmp_path, photos):
    shutil.copytree(photos, tmp_path / "photos/five")
    runs = [
        write_run(tmp_path / "runs/ten", list_images(photos)),
        write_run(tmp_path / "runs/five", list_images(tmp_path / "photos/five")[:5]),
    ]
    shutil.rmtree(tmp_path / "photos/five")
    drawn = draw_plan(runs, tmp_path / "plan", 4)
    assert drawn.plan.references == {"anna": tuple(list_images(photos))}


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["x/anna", "y/ben"], ["anna", "ben"]),
        (["x/anna", "y/anna"], ["x/anna", "y/anna"]),
        (["1/x/anna", "2/x/anna", "3/x/anna"], ["x/anna", "x/anna-2", "x/anna-3"]),
        (["1/x/a", "2/x/a", "1/x/a-2", "y/a-2"], ["x/a", "x/a-2", "x/a-2-2", "y/a-2"]),
        (["1/x/anna", "2/x/anna", "x/ben", "y/ben", "cara"], ["cara", "x/anna", "x/anna-2", "x/ben", "y/ben"]),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "run", "photos"])
def test_persons_of_one_name_are_told_apart(tmp_path, folders, names, kind):
    make: dict[str, Callable[[str], Path]] = {
        "folder": lambda name: write_images(tmp_path / name, 2)[0].parent,
        "run": lambda name: write_run(tmp_path / name, steps=[0]),
        "photos": lambda name: write_run(
            tmp_path / "runs" / name.replace("/", " "), write_images(tmp_path / name, 1), steps=[0]
        ),
    }
    drawn = draw_plan([make[kind](name) for name in folders], tmp_path / "plan", 2)
    assert sorted({person for person, _ in drawn.counts}) == names
    renamed = [note for note in drawn.notes if "several people are called" in note]
    assert len(renamed) == sum("/" in name for name in names)


def test_a_source_named_twice_counts_once(tmp_path, monkeypatch, run):
    write_images(tmp_path / "people/ben", 3)
    monkeypatch.chdir(tmp_path)
    sources = [run, Path("runs/a"), tmp_path / "people", Path("people/ben"), Path("runs/../runs/a")]
    drawn = draw_plan(sources, Path("plan"))
    assert drawn.counts == {("anna", SIMILARITY): 12, ("anna", AESTHETIC): 12, ("ben", AESTHETIC): 3}


def test_a_run_without_photos_is_rated_for_beauty_and_takes_photos_that_are_named(tmp_path, photos):
    run = write_run(tmp_path / "runs/mine", cells=4)
    drawn = draw_plan([run], tmp_path / "one", 8)
    assert drawn.counts == {("mine", AESTHETIC): 8}
    assert drawn.notes == (
        "mine: no photos to compare with, so only aesthetic is rated; name them with --references mine=FOLDER",
    )
    drawn = draw_plan([run], tmp_path / "two", 8, references={"mine": photos})
    assert drawn.counts == {("mine", SIMILARITY): 4, ("mine", AESTHETIC): 4}
    assert drawn.plan.references == {"mine": tuple(list_images(photos))}
    assert drawn.notes == ()


def test_images_given_to_the_metric_without_files_have_no_place(tmp_path, photos):
    run = write_run(tmp_path / "runs/mine")
    content = json.loads((run / "run.json").read_text())
    content["weights"][SIMILARITY]["references"] = [{"file": "photo 0", "sha256": "0" * 64}]
    (run / "run.json").write_text(json.dumps(content))
    assert "mine: 1 of 1 recorded photos are missing or have changed: photo 0 (missing)" in refused(
        [run], tmp_path / "plan"
    )
    drawn = draw_plan([run], tmp_path / "plan", 8, references={"mine": photos})
    assert drawn.plan.references == {"mine": tuple(list_images(photos))}
    assert drawn.notes == (f"mine: 1 of 1 recorded photos are not in {photos}; all photos there are shown",)


def test_photos_recorded_by_relative_paths_are_found_from_the_training_s_folder(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "runs/a", list_images("photos/anna"))
    drawn = draw_plan([run], tmp_path / "plan", 2)
    assert drawn.plan.references == {"anna": tuple(list_images(photos))}
    monkeypatch.chdir("/")
    message = refused([run], tmp_path / "other")
    assert "anna: 10 of 10 recorded photos are missing or have changed: photos/anna/000.png (missing), " in message
    assert "--references anna=FOLDER" in message
    drawn = draw_plan([run], tmp_path / "other", 2, references={"anna": photos})
    assert drawn.plan.references == {"anna": tuple(list_images(photos))}


def test_photos_that_changed_or_went_are_looked_for_in_the_named_folder(tmp_path, run, photos):
    moved = tmp_path / "moved here"
    shutil.copytree(photos, moved)
    write_images(moved / "more", 1)[0].rename(moved / "other.png")
    (photos / "000.png").unlink()
    image("changed").save(photos / "001.png")
    message = refused([run], tmp_path / "plan")
    assert (
        f"2 of 10 recorded photos are missing or have changed: {photos}/000.png (missing), {photos}/001.png (chan"
        in message
    )
    assert "--references anna=FOLDER" in message
    drawn = draw_plan([run], tmp_path / "plan", 4, references={"anna": moved})
    expected = [(moved if index < 2 else photos) / f"{index:03d}.png" for index in range(10)]
    assert drawn.plan.references == {"anna": tuple(expected)}
    assert drawn.notes == ()


def test_other_photos_may_stand_in_with_a_note(tmp_path, run, photos):
    (photos / "000.png").unlink()
    others = write_images(tmp_path / "others", 3)
    drawn = draw_plan([run], tmp_path / "plan", 4, references={"anna": tmp_path / "others"})
    assert drawn.plan.references == {"anna": tuple(others)}
    assert drawn.notes == (
        f"anna: 1 of 10 recorded photos are not in {tmp_path / 'others'}; all photos there are shown",
    )


def test_photos_named_for_nothing_are_said(tmp_path, run):
    write_images(tmp_path / "others", 1)
    beauty = write_run(tmp_path / "runs/beauty", metrics=[AESTHETIC])
    given = {"anna": tmp_path / "others", "beauty": tmp_path / "others"}
    drawn = draw_plan([run, beauty], tmp_path / "plan", 4, references=given)
    assert "anna: " in drawn.notes[0]
    assert "is not needed because the recorded photos are still" in drawn.notes[0]
    assert drawn.notes[1] == "beauty: photos are not needed because there are no scores of face_similarity"


# --- folders of images


def test_folders_of_images_and_runs_go_together(tmp_path, run, photos):
    write_images(tmp_path / "people/ben", 6)
    write_images(tmp_path / "people/cara", 6)
    write_images(tmp_path / "people/.thumbnails", 6)
    write_images(tmp_path / "dora", 6)
    sources = [run, tmp_path / "people", tmp_path / "dora"]
    drawn = draw_plan(sources, tmp_path / "plan", 6, references={"ben": photos})
    assert drawn.counts == {
        ("anna", SIMILARITY): 3,
        ("anna", AESTHETIC): 3,
        ("ben", SIMILARITY): 3,
        ("ben", AESTHETIC): 3,
        ("cara", AESTHETIC): 6,
        ("dora", AESTHETIC): 6,
    }
    assert set(drawn.plan.references) == {"anna", "ben"}
    assert [note.split(":")[0] for note in drawn.notes] == ["cara", "dora"]
    assert {(task.run, task.step, task.cell) for task in drawn.plan.tasks if task.person == "cara"} == {(None,) * 3}


def test_the_folder_one_stands_in_has_a_name(tmp_path, monkeypatch):
    write_images(tmp_path / "anna", 4)
    monkeypatch.chdir(tmp_path / "anna")
    assert draw_plan([Path()], Path("plan"), 4).counts == {("anna", AESTHETIC): 4}


def test_images_in_sub_folders_of_images_are_left_out_with_a_note(tmp_path):
    write_images(tmp_path / "anna", 4)
    write_images(tmp_path / "anna/rejected", 4)
    drawn = draw_plan([tmp_path / "anna"], tmp_path / "plan", 4)
    assert {task.file.parent for task in drawn.plan.tasks} == {tmp_path / "anna"}
    assert "subfolders (rejected) are left out" in drawn.notes[0]


NAMES = ['comma, "quote" and space ', "line\nbreak\r", "caf\u00e9 \u5199\u771f", os.fsdecode(b"not utf-8 \xff")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relative", [False, True])
def test_strange_names_come_through_and_the_tree_may_move(tmp_path, monkeypatch, name, relative):
    project = tmp_path / "project"
    write_images(project / "people" / name, 3)
    write_images(project / "photos", 2)
    run = write_run(project / "runs" / name, steps=[0])
    monkeypatch.chdir(project)
    root = Path() if relative else project
    person = name.encode(errors="backslashreplace").decode()
    references = {f"people/{person}": root / "photos"}
    draw = draw_plan([root / "people", root / run.relative_to(project)], root / "plan" / name, 4, 0, 0, references)
    assert {person for person, _ in draw.counts} == {f"people/{person}", f"runs/{person}"}
    assert all(note.isprintable() or "\n" in name for note in draw.notes)
    "".join([*draw.notes, *(person for person, _ in draw.counts)]).encode()  # a terminal takes them
    project.rename(tmp_path / "moved")
    found = read_plan(tmp_path / "moved/plan" / name)
    assert len(found.tasks) == 7
    assert all(sha256(task.file) == task.sha256 and (task.run is None or task.run.is_dir()) for task in found.tasks)
    assert [len(list_images(photos[0].parent)) for photos in found.references.values()] == [2]


# --- what is in the way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_person": 1}, "per person: found 1, expected at least 2"),
        ({"repeats": -0.1}, "repeats: found -0.1, expected a share from 0 to 0.5"),
        ({"repeats": 0.51}, "repeats: found 0.51"),
        ({"repeats": float("nan")}, "repeats: found nan"),
        ({"references": {"bob": Path("x")}}, "references: found bob, expected one of the people anna"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, run, options, message):
    assert message in refused([run], tmp_path / "plan", **options)
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("name", [TASKS, PLAN])
def test_a_plan_is_never_overwritten(tmp_path, run, name):
    draw_plan([run], tmp_path / "plan", seed=1)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "plan").iterdir()}
    assert "holds tasks.csv and plan.json, which ratings may depend on" in refused([run], tmp_path / "plan")
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "plan").iterdir()}
    (tmp_path / "plan" / name).unlink()
    assert "ratings may depend on" in refused([run], tmp_path / "plan")


def test_a_folder_that_cannot_be_written(tmp_path, run):
    (tmp_path / "file").touch()
    message = refused([run], tmp_path / "file/plan")
    assert str(tmp_path / "file/plan") in message
    assert "cannot write the plan" in message


def damaged_run(folder: Path, weights: object) -> Path:
    run = write_run(folder, steps=[0])
    (run / "run.json").write_text(json.dumps({"weights": weights}))
    return run


SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda root: root / "nowhere", "no such folder; expected a run directory or a folder of images"),
    "a file": (lambda root: write_images(root / "in", 1)[0], "found a file; expected a run directory or a folder"),
    "an empty folder": (lambda root: root.joinpath("empty"), "found no images and no run.json"),
    "a folder of runs": (
        lambda root: write_run(root / "all runs/a").parent,
        "found runs in it; name them directly",
    ),
    "a new run": (lambda root: write_run(root / "new", steps=[]), "found a run without images; wait"),
    "other scores": (
        lambda root: write_run(root / "other", metrics=["clip"]),
        "found no scores of face_similarity or aesthetic",
    ),
    "no photos": (
        lambda root: write_run(root / "bare", metrics=[SIMILARITY]),
        "bare: found no photos to compare with; name them with --references bare=FOLDER",
    ),
    "no weights": (lambda root: damaged_run(root / "w", None), "weights: damaged"),
    "odd photos": (
        lambda root: damaged_run(root / "o", {SIMILARITY: {"references": [3]}}),
        "photos: damaged",
    ),
    "odd files": (
        lambda root: damaged_run(root / "f", {SIMILARITY: {"references": [{"file": 3, "sha256": ""}]}}),
        "photos: damaged",
    ),
}


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_cannot_be_used(root, name):
    make, message = SOURCES[name]
    source = make(root)
    found = refused([source], root / "plan")
    assert message in found
    assert source.name in found


def test_a_run_whose_images_are_gone(tmp_path, run):
    shutil.rmtree(run / "images")
    assert f"{run}: found none of its 24 images" in refused([run], tmp_path / "plan")


def test_everything_in_the_way_is_said_at_once(root, run, photos):
    (photos / "003.png").unlink()
    sources = [run, *(make(root) for make, _ in SOURCES.values())]
    message = refused(sources, root / "plan", 1, 2.0, references={"nobody": root})
    expected = [message for _, message in SOURCES.values()]
    for part in (*expected, "per person: found 1", "repeats: found 2", "003.png (missing)"):
        assert part in message
    assert "nobody" not in message  # may be of a source that could not be read


def test_no_source_is_an_error(tmp_path):
    assert "found no sources" in refused([], tmp_path / "plan")


def test_named_photos_that_cannot_be_shown_are_an_error(tmp_path):
    write_images(tmp_path / "anna", 4)
    bad = write_images(tmp_path / "photos", 2)[1]
    bad.write_text("no image")
    references = {"anna": tmp_path / "photos"}
    assert str(bad) in refused([tmp_path / "anna"], tmp_path / "plan", references=references)
    assert "no such folder" in refused([tmp_path / "anna"], tmp_path / "plan", references={"anna": tmp_path / "no"})


@needs.ordinary_user
def test_a_folder_that_may_not_be_read(tmp_path):
    write_images(tmp_path / "anna", 4)
    (tmp_path / "anna").chmod(0)
    assert "Permission denied" in refused([tmp_path / "anna"], tmp_path / "plan")


def test_a_run_that_goes_on_can_be_planned(tmp_path, photos):
    run = write_run(tmp_path / "run", list_images(photos))
    record = RunRecord(run, PromptGrid(["a photo"], seeds=range(8), steps=2))
    with (run / "images.jsonl").open("a") as file:
        file.write('{"step": 900, "ce')
    with pytest.warns(RuntimeWarning, match="truncated"):
        assert draw_plan([run], tmp_path / "plan", 24).counts == {("anna", SIMILARITY): 12, ("anna", AESTHETIC): 12}
    record.close()
