"""Ratings, scores and plan come together; what does not belong is left out with a note, or refused with all reasons."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.studies.agreement.inputs import load
from finetune_monitor.studies.agreement.settings import StudyInputs
from finetune_monitor.studies.labeling.ratings import Rating, to_csv
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import LabelingPlan, Task, write_plan
from support.runs import write_run

STEPS = {0: 0.1, 300: 0.3, 600: 0.5}
CELLS = ("p00-s0", "p00-s7", "p01-s0", "p01-s7")


def plan_of(folder: Path, runs: Sequence[Path], metrics: Sequence[str] = ("face_similarity",)) -> LabelingPlan:
    """Every image of the runs, each run of a person of its own, and one repeat."""
    tasks = []
    for metric in metrics:
        for run in runs:
            for step in STEPS:
                for cell in CELLS:
                    file = run / f"images/step-{step:06d}/{cell}.png"
                    name = f"{metric[0]}-{run.name}-{step}-{cell}"
                    tasks.append(Task(name, metric, run.name, file, sha256(file), run, step, cell))
    again = tasks[0]
    repeat = Task("again", again.metric, again.person, again.file, again.sha256, again.run, again.step, again.cell)
    repeat = Task(**{**vars(repeat), "repeat_of": again.image_id})
    plan = LabelingPlan((*tasks, repeat), {run.name: () for run in runs}, 0)
    write_plan(folder, plan)
    return plan


def rate(folder: Path, plan: LabelingPlan, labelers: Sequence[str] = ("eva", "max", "ida")) -> None:
    store = RatingStore(folder / RATINGS)
    store.create()
    for place, task in enumerate(plan.tasks):
        for offset, labeler in enumerate(labelers):
            store.add(f"{labeler}-{place}", Rating(task.image_id, labeler, task.metric, 1 + (place + offset) % 5))


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, LabelingPlan]:
    runs = [tmp_path / name for name in ("ana", "ben")]
    for run in runs:
        write_run(run, STEPS)
    return tmp_path / "labels", plan_of(tmp_path / "labels", runs)


def test_a_rated_plan_needs_nothing_else(planned):
    folder, plan = planned
    rate(folder, plan)
    loaded = load(StudyInputs((folder,)))
    material = loaded.materials["face_similarity"]
    sample = material.sample
    assert sample.table.labels.shape == (3, 24)
    assert sample.table.repeats["eva"].tolist() == [[1, 5]]
    assert sorted(set(sample.persons or ())) == ["ana", "ben"]
    scores = dict(zip(sample.table.images, sample.scores, strict=True))
    assert scores["f-ana-300-p00-s7"] == pytest.approx(0.31)
    assert material.weights == {"recognizer": "vggface2"}
    assert loaded.ratings == 75
    assert not loaded.problems


def test_ratings_that_came_back_by_mail_are_added(planned, tmp_path):
    folder, plan = planned
    rate(folder, plan, ("eva", "max"))
    answers = [Rating(task.image_id, "ida", task.metric, 3) for task in plan.tasks]
    strange = Rating("unknown", "ida", "face_similarity", 3)
    (tmp_path / "ida.csv").write_text(to_csv([*answers, strange]))
    loaded = load(StudyInputs((folder, tmp_path / "ida.csv")))
    assert loaded.materials["face_similarity"].sample.table.labelers == ("eva", "ida", "max")
    assert [problem.kind.value for problem in loaded.problems] == ["unknown image"]
    assert any("always gave the same answer: ida" in note for note in loaded.materials["face_similarity"].notes)


def test_an_image_that_is_no_longer_the_one_people_saw_is_left_out(planned):
    folder, plan = planned
    rate(folder, plan)
    plan.by_id["f-ana-0-p00-s7"].file.write_bytes(b"drawn again")
    material = load(StudyInputs((folder,))).materials["face_similarity"]
    assert len(material.sample.table.images) == 23
    assert any("f-ana-0-p00-s7" in note and "changed" in note for note in material.notes)


def test_who_rated_nothing_but_changed_images_is_no_labeler_any_more(planned):
    folder, plan = planned
    rate(folder, plan)
    changed = plan.by_id["f-ana-0-p00-s7"]
    RatingStore(folder / RATINGS).add("one", Rating(changed.image_id, "guest", "face_similarity", 1))
    changed.file.write_bytes(b"drawn again")
    assert load(StudyInputs((folder,))).materials["face_similarity"].sample.table.labelers == ("eva", "ida", "max")


def test_images_without_a_score_stay_and_are_told(planned, tmp_path):
    folder, plan = planned
    rate(folder, plan)
    rows = [f"{task.image_id},{'' if index == 0 else index}" for index, task in enumerate(plan.tasks)]
    (tmp_path / "scores.csv").write_text("image_id,score\n" + "\n".join(rows))
    material = load(StudyInputs((folder,), tmp_path / "scores.csv")).materials["face_similarity"]
    assert math.isnan(material.sample.scores[material.sample.table.images.index("f-ana-0-p00-s0")])
    assert material.weights is None
    assert any("images has no score" in note and "f-ana-0-p00-s0" in note for note in material.notes)


def test_labelers_with_gaps_can_be_left_out(planned):
    folder, plan = planned
    rate(folder, plan, ("eva", "max", "ida"))
    RatingStore(folder / RATINGS).add("one", Rating(plan.tasks[0].image_id, "guest", "face_similarity", 1))
    assert len(load(StudyInputs((folder,))).materials["face_similarity"].sample.table.labelers) == 4
    material = load(StudyInputs((folder,), min_coverage=0.5)).materials["face_similarity"]
    assert material.sample.table.labelers == ("eva", "ida", "max")
    assert "Left out for labeling less than 50% of the images: guest." in material.notes


def test_persons_of_a_plain_table_are_those_of_the_scores_or_not_known(tmp_path):
    ratings = [Rating(f"i{i}", f"e{e}", "appeal", 1 + (i + e) % 5) for i in range(12) for e in range(3)]
    (tmp_path / "ratings.csv").write_text(to_csv(ratings))
    named = "\n".join(f"i{i},{i},{'ana' if i < 6 else 'ben'}" for i in range(12))
    (tmp_path / "named.csv").write_text("image,score,person\n" + named)
    (tmp_path / "plain.csv").write_text("image,score\n" + "\n".join(f"i{i},{i}" for i in range(12)))
    files = (tmp_path / "ratings.csv",)
    found = {
        name: load(StudyInputs(files, tmp_path / f"{name}.csv")).materials["appeal"] for name in ("named", "plain")
    }
    assert found["named"].sample.persons == tuple(
        "ana" if int(i[1:]) < 6 else "ben" for i in found["named"].sample.table.images
    )
    assert found["plain"].sample.persons is None
    assert np.array_equal(found["plain"].sample.scores, np.arange(12.0))


def test_persons_of_some_images_only_are_refused_and_those_without_a_score_need_none(tmp_path):
    ratings = [Rating(f"i{i}", f"e{e}", "appeal", 1 + (i + e) % 5) for i in range(12) for e in range(3)]
    (tmp_path / "ratings.csv").write_text(to_csv(ratings))
    files = (tmp_path / "ratings.csv",)
    rows = [f"i{i},{i},{'ana' if i < 6 else 'ben'}" for i in range(11)]
    (tmp_path / "scores.csv").write_text("image,score,person\n" + "\n".join(rows))
    assert load(StudyInputs(files, tmp_path / "scores.csv")).materials["appeal"].sample.unit == "person"
    (tmp_path / "scores.csv").write_text("image,score,person\n" + "\n".join([*rows, "i11,11,"]))
    with pytest.raises(UserError, match="found no person for i11; give a person for all"):
        load(StudyInputs(files, tmp_path / "scores.csv"))


def test_of_one_run_the_cells_belong_together(tmp_path):
    write_run(tmp_path / "ana", STEPS)
    rate(tmp_path / "labels", plan_of(tmp_path / "labels", [tmp_path / "ana"]))
    sample = load(StudyInputs((tmp_path / "labels",))).materials["face_similarity"].sample
    assert sample.unit == "cell"
    assert sorted(set(sample.groups or ())) == sorted(CELLS)


@pytest.mark.parametrize(
    ("ratings", "scores", "message"),
    [
        (1, "file", "found 1 labeler .e0., expected 3 or more"),
        (2, "file", "found 2 labelers .e0, e1., expected 3 or more"),
        (3, None, "appeal: no run has recorded scores for these images; give a CSV file with --scores"),
        (3, "short", "found 9 images with both labels and a score, expected 10 or more"),
        (3, "other", "none of the 12 labeled images has a score"),
    ],
)
def test_what_is_too_little_is_refused(tmp_path, ratings, scores, message):
    rows = [Rating(f"i{i}", f"e{e}", "appeal", 1 + i % 5) for i in range(12) for e in range(ratings)]
    (tmp_path / "ratings.csv").write_text(to_csv(rows))
    names = {"file": [f"i{i}" for i in range(12)], "short": [f"i{i}" for i in range(9)], "other": ["x"]}
    if scores:
        (tmp_path / "s.csv").write_text("image,score\n" + "\n".join(f"{n},{i}" for i, n in enumerate(names[scores])))
    with pytest.raises(UserError, match=message):
        load(StudyInputs((tmp_path / "ratings.csv",), tmp_path / "s.csv" if scores else None))


def test_rows_that_were_left_out_are_named_if_too_little_is_left(tmp_path):
    given = (("a", "3.5"), ("b", 4), ("c", 2))
    rows = "".join(f"i{i},{who},appeal,{label}\n" for i in range(12) for who, label in given)
    (tmp_path / "ratings.csv").write_text("image,rater,question,rating\n" + rows)
    (tmp_path / "s.csv").write_text("image,score\n" + "".join(f"i{i},{i}\n" for i in range(12)))
    with pytest.raises(UserError) as error:
        load(StudyInputs((tmp_path / "ratings.csv",), tmp_path / "s.csv"))
    assert str(error.value).splitlines()[2] == (
        "  - left out before that: 12 unusable ratings, such as ratings.csv, line 2: found the label '3.5', expected a "
        "whole number from 1 to 5"
    )


def test_all_metrics_that_cannot_be_compared_are_named_at_once(tmp_path):
    rows = [Rating(f"i{i}", f"e{e}", m, 1 + i % 5) for i in range(12) for e in range(3) for m in ("appeal", "realism")]
    (tmp_path / "ratings.csv").write_text(to_csv(rows))
    with pytest.raises(UserError) as error:
        load(StudyInputs((tmp_path / "ratings.csv",)))
    assert "appeal: no run" in str(error.value)
    assert "realism: no run" in str(error.value)
    with pytest.raises(UserError, match="--metric: found apeal, but the ratings are for appeal, realism"):
        load(StudyInputs((tmp_path / "ratings.csv",), metric="apeal"))


def test_a_plan_that_nobody_rated_and_two_plans_are_refused(planned, tmp_path):
    folder, _ = planned
    with pytest.raises(UserError, match="holds no ratings yet; rate images with"):
        load(StudyInputs((folder,)))
    with pytest.raises(UserError, match="expected at most one plan"):
        load(StudyInputs((folder, tmp_path)))
    with pytest.raises(UserError, match=r"found no plan\.json"):
        load(StudyInputs((tmp_path,)))
    folder = folder.rename(folder.parent / "the plan")
    with pytest.raises(UserError, match=f"`finetune-monitor label serve '{folder}'`"):
        load(StudyInputs((folder,)))
