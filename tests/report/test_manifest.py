"""What the page is told: curves, cells that runs share, settings that differ, and why scores may not be compared."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.grid import MAY_DIFFER, SAMPLED_ELSEWHERE, PromptGrid
from finetune_monitor.record.kept_weights import LORA_FILE, NOTE, step_folder
from finetune_monitor.report import manifest as content
from finetune_monitor.report.comparability import comparability
from finetune_monitor.report.page_runs import PageRun, Reference, Unreadable, read_runs
from finetune_monitor.report.thumbnails import Presence
from finetune_monitor.stats.estimate import Estimate
from support.runs import CEILING, COLUMNS, GRID, NOTICE, evaluation, write_run


@pytest.fixture
def ana(tmp_path) -> PageRun:
    write_run(tmp_path / "ana", {0: 0.1, 50: 0.6, 100: 0.5}, StopReason.PATIENCE)
    return read_runs([tmp_path / "ana"])[0][0]


def other(run: PageRun, name: str, **changes: object) -> PageRun:
    return replace(run, id=name, name=name, folder=Path("runs") / name, **changes)


def described(*runs: PageRun, sweep: dict | None = None, unreadable: tuple[Unreadable, ...] = ()) -> dict:
    presences = {run.id: {found.step: [Presence.SHOWN] * 4 for found in run.evaluations} for run in runs}
    files = {run.id: content.RunFiles([None] * len(run.references), None, "..") for run in runs}
    return content.manifest(runs, unreadable, presences, files, sweep)


def test_one_run(ana):
    found = described(ana)
    assert (found["format"], found["title"], found["live"], found["notes"]) == (1, str(ana.folder), False, [])
    assert found["metrics"] == [
        {
            "name": "face_similarity",
            "higher_is_better": True,
            "bounds": (-1.0, 1.0),
            "main": True,
            "zero": "",
            "unit": "-1 to 1",
            "is_share": False,
            "is_stars": False,
            "over": "prompts",
        },
        {
            "name": "aesthetic",
            "higher_is_better": True,
            "bounds": (1.0, 10.0),
            "main": True,
            "zero": "",
            "unit": "1 to 10",
            "is_share": False,
            "is_stars": False,
            "over": "prompts",
        },
        {
            "name": "faces_found",
            "higher_is_better": True,
            "bounds": None,
            "main": False,
            "zero": "no face",
            "unit": "share of images, 0 to 1",
            "is_share": True,
            "is_stars": False,
            "over": "prompts",
        },
    ]
    assert found["cells"][1] == {
        "prompt": GRID.prompts[0],
        "negative_prompt": "",
        "seed": 7,
        "sampling": "default sampler, 3 steps, guidance 7.5, the model's own size",
    }
    [run] = found["runs"]
    assert (run["cells"], run["ids"]) == ([0, 1, 2, 3], [cell.id for cell in GRID.cells])
    assert (run["state"], run["reason"], run["best"]["step"], run["settings"]) == ("ended", "patience", 50, {})
    assert (run["steps"], run["epochs"]) == ([0, 50, 100], [0.0, 5.0, 10.0])
    assert run["scores"]["face_similarity"]["mean"] == pytest.approx([0.115, 0.615, 0.515])
    assert run["scores"]["face_similarity"]["n"] == [4, 4, 4]
    assert run["ceilings"] == {"face_similarity": {"mean": CEILING.mean, "low": CEILING.low, "high": CEILING.high}}
    assert run["notices"] == (NOTICE,)


def test_missing_is_null_and_not_zero(ana):
    few = replace(ana, evaluations=(evaluation(0, faces=0), evaluation(50, faces=2)))
    shown = {0: [Presence.SHOWN] * 4, 50: [Presence.SHOWN, Presence.MISSING, Presence.SHOWN, Presence.UNREADABLE]}
    found = content.scores_by_image(few, shown)
    assert all(math.isnan(value) for value in found["scores"]["face_similarity"][0])
    assert found["scores"]["face_similarity"][1][:2] == [0.5, 0.51]
    assert found["scores"]["faces_found"] == [[0.0] * 4, [1.0, 1.0, 0.0, 0.0]]
    assert found["absent"] == [[], [1, 3]]
    curve = described(few)["runs"][0]["scores"]["face_similarity"]
    assert math.isnan(curve["mean"][0])
    assert (curve["n"], curve["missing"]) == ([0, 2], [4, 2])


def test_a_score_that_some_evaluations_do_not_have(ana):
    first = replace(ana.evaluations[0], scores={})
    curve = described(replace(ana, evaluations=(first, *ana.evaluations[1:])))["runs"][0]["scores"]["aesthetic"]
    assert curve["mean"] == [None, 5.0, 5.0]
    assert curve["n"] == [None, 4, 4]


@pytest.mark.parametrize(
    ("epochs", "found"),
    [([None, 1.5, 3.0], [0.0, 1.5, 3.0]), ([None, None, None], [None] * 3), ([None, 1.5, None], [0.0, 1.5, None])],
)
def test_step_0_is_the_start_of_the_first_epoch(ana, epochs, found):
    evaluations = tuple(replace(old, epoch=epoch) for old, epoch in zip(ana.evaluations, epochs, strict=True))
    assert described(replace(ana, evaluations=evaluations))["runs"][0]["epochs"] == found


def test_a_run_that_goes_on_makes_the_page_live(ana):
    goes_on = other(ana, "ben", ending=replace(ana.ending, ended=False, reason=None))
    found = described(ana, goes_on)
    assert (found["live"], found["title"]) == (True, "2 runs")
    assert [run["state"] for run in found["runs"]] == ["ended", "running"]


def test_a_ceiling_that_could_not_be_measured_is_none(ana):
    unknown = Estimate(math.nan, math.nan, math.nan, 0, 1)
    assert described(replace(ana, ceilings={"face_similarity": unknown}))["runs"][0]["ceilings"] == {}


def with_grid(run: PageRun, grid: PromptGrid) -> PageRun:
    return replace(run, cells=grid.cells)


def test_runs_share_the_cells_that_are_equal_in_all(ana):
    wider = with_grid(other(ana, "ben"), PromptGrid(["another", GRID.prompts[0]], seeds=(7, 9)))
    found = described(ana, wider)
    assert [run["cells"] for run in found["runs"]] == [[0, 1, 2, 3], [4, 5, 1, 6]]
    assert len(found["cells"]) == 7
    assert found["notes"] == [
        "the runs have different grids: 1 of 7 cells are in all of them; images are compared on shared cells, "
        "but their means are over different images"
    ]


def test_equal_prompts_that_are_sampled_otherwise_are_other_cells(ana):
    found = described(ana, other(ana, "ben", sampling="another sampler"))
    assert [run["cells"] for run in found["runs"]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert "none of the 8 cells are in all of them" in found["notes"][0]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, None),
        (
            {"measured_with": {"face_similarity": {"recognizer": {"id": "casia", "sha256": "ab" * 32}}}},
            "scores of face_similarity are not comparable between runs because they differ in: "
            "recognizer vggface2, higher is better, from -1 to 1 (ana); "
            "recognizer casia (abababab), higher is better, from -1 to 1 (ben)",
        ),
        (
            {"columns": {**COLUMNS, "aesthetic": replace(COLUMNS["aesthetic"], bounds=(0.0, 10.0))}},
            "scores of aesthetic are not comparable between runs because they differ in: "
            "higher is better, from 1 to 10 (ana); higher is better, from 0 to 10 (ben)",
        ),
        (
            {"columns": {"face_similarity": COLUMNS["face_similarity"]}},
            "aesthetic was measured in 1 of 2 runs: ana",
        ),
        ({"model": "sd"}, "the runs start from different models: an unknown model (ana); sd (ben)"),
    ],
)
def test_what_keeps_runs_from_being_compared_is_said(ana, changes, note):
    runs = [replace(ana, name="ana"), other(ana, "ben", **changes)]
    assert comparability(runs) == ([] if note is None else [note])


def test_cells_of_other_tools_may_differ(ana):
    elsewhere = [replace(run, sampling=SAMPLED_ELSEWHERE) for run in (ana, other(ana, "ben"))]
    assert comparability(elsewhere) == [MAY_DIFFER]


def test_runs_have_different_photos_only_if_both_have_photos(ana):
    with_photos = [replace(ana, references=(Reference("used", "01.png", digest * 32),)) for digest in ("ab", "cd")]
    assert comparability(with_photos) == [
        "the runs have different reference photos: each run's images are compared with its own photos"
    ]
    assert comparability([ana, with_photos[0]]) == []


def test_a_sentence_names_a_few_runs_only(ana):
    runs = [other(ana, f"r{index}", model="a" if index < 5 else "b") for index in range(6)]
    assert comparability(runs) == ["the runs start from different models: a (r0, r1, r2 and 2 more); b (r5)"]


def test_settings_that_differ(ana):
    a = replace(ana, hparams={"output_dir": "a", "train.rank": 4, "seed": 0, "data.flip": True})
    b = other(ana, "ben", hparams={"output_dir": "b", "train.rank": 8, "seed": 0, "data.flip": 1, "more": 1})
    assert [run["settings"] for run in described(a, b)["runs"]] == [
        {"train.rank": 4, "data.flip": True, "more": None},
        {"train.rank": 8, "data.flip": 1, "more": 1},
    ]


def test_a_column_of_which_nothing_is_said_has_no_direction(ana):
    strange = replace(ana, columns={**COLUMNS, "face_similarity": SIDE})
    found = {metric["name"]: metric for metric in content.metrics([strange])}
    assert found["face_similarity"] == {
        "name": "face_similarity",
        "higher_is_better": None,
        "bounds": None,
        "main": False,
        "zero": "",
        "unit": "",
        "is_share": False,
        "is_stars": False,
        "over": "prompts",
    }


@pytest.mark.parametrize(
    ("presences", "problems"),
    [
        ({0: [Presence.SHOWN, Presence.SHOWN]}, []),
        ({0: [Presence.MISSING, Presence.SHOWN]}, ["step 0: 1 of 2 images are missing"]),
        (
            {0: [Presence.MISSING] * 2, 50: [Presence.UNREADABLE, Presence.MISSING], 100: [Presence.MISSING] * 2},
            [
                "2 steps from 0 to 100: 2 of 2 images are missing",
                "step 50: 1 of 2 images are missing",
                "step 50: 1 of 2 images cannot be read",
            ],
        ),
    ],
)
def test_problems_with_images_in_words(presences, problems):
    assert content.image_problems(presences) == problems


def test_trials_of_a_sweep_are_named_by_the_ids_of_their_runs(ana):
    trials = [
        {"folder": str(ana.folder), "name": "x", "state": "finished"},
        {"folder": "gone", "name": "y", "state": "failed"},
    ]
    found = described(ana, sweep={"name": "runs/sweep", "trials": trials, "curves": {}})
    assert found["title"] == "runs/sweep"
    assert found["sweep"] == {
        "name": "runs/sweep",
        "curves": {},
        "trials": [
            {"run": ana.id, "name": "x", "state": "finished"},
            {"run": None, "name": "y", "state": "failed"},
        ],
    }


@pytest.mark.parametrize(
    ("state", "live", "why"),
    [
        ("running", True, None),
        ("waiting", True, None),
        ("finished", False, None),
        ("failed", False, "it failed: no such model"),
        ("stopped_early", False, "the sweep stopped it early because others were better at the same step"),
    ],
)
def test_the_sweep_says_how_its_trials_stand(ana, state, live, why):
    trial = {"folder": str(ana.folder), "name": "x", "state": state, "error": "no such model\nTraceback"}
    found = described(ana, sweep={"name": "runs/sweep", "trials": [trial], "curves": {}})
    assert found["live"] is live
    assert found["runs"][0]["why"] == (why or ana.ending.why)


def test_it_is_json_with_hostile_text_in_it(ana):
    found = described(ana, unreadable=(Unreadable(Path("</script>"), "<b>"),))
    assert json.loads(json.dumps(found))["unreadable"] == [{"folder": "</script>", "problem": "<b>"}]


def test_the_pareto_front_and_the_weights_in_the_folder_are_told(ana):
    [run] = described(ana)["runs"]
    assert run["pareto"]["columns"] == ("face_similarity", "aesthetic")
    assert run["pareto"]["points"][0] == [0, pytest.approx(0.115), 5.0]
    assert run["pareto"]["steps"] == (50,)
    assert run["weights"] == {}
    lora, whole = step_folder(ana.folder, 50), step_folder(ana.folder, 100)
    for step, folder in {50: lora, 100: whole}.items():
        folder.mkdir(parents=True)
        (folder / NOTE).write_text(json.dumps({"step": step}))
    (lora / LORA_FILE).touch()
    [found] = read_runs([ana.folder])[0]
    assert described(found)["runs"][0]["weights"] == {
        50: {"place": f"weights/step-000050/{LORA_FILE}", "lora": True, "kohya": None},
        100: {"place": "weights/step-000100", "lora": False, "kohya": None},
    }


def test_levels_and_sounding_steps_of_alarms_are_those_of_the_run(ana):
    column = replace(COLUMNS["face_similarity"], alarm=0.55, says="it falls")
    sounding = tuple(
        replace(found, alarms=("face_similarity", "gone") if found.step else ()) for found in ana.evaluations
    )
    run = replace(ana, columns={**COLUMNS, "face_similarity": column}, evaluations=sounding)
    found, other = (each["alarms"] for each in described(run, replace(ana, id="ben"))["runs"])
    assert other == {}
    assert {key: found["face_similarity"][key] for key in ("level", "side")} == {"level": 0.55, "side": "below"}
    assert list(found["face_similarity"]["sounds"]) == [50, 100]
    assert found["face_similarity"]["sounds"][50].endswith("below 0.55: it falls")


def test_the_photo_that_an_image_is_nearest_to_is_told_with_its_likeness(ana):
    said = {
        "twin": ScoreColumn(None, role="note", of="twins", metric="twins", likeness="closeness"),
        "twins": ScoreColumn(False, metric="twins", alarm=0.5),
        "triplets": ScoreColumn(False, metric="twins", alarm=0.5),
        "aesthetic": replace(COLUMNS["aesthetic"], alarm=3.0),
    }
    images = tuple(replace(image, scores={**image.scores, "twin": 1.0}) for image in ana.evaluations[0].images)
    first = replace(ana.evaluations[0], images=images)
    photos = tuple(Reference("used", f"{name}.png", name * 64) for name in "ab")
    columns = {**ana.columns, **said}
    run = replace(ana, columns=columns, evaluations=(first,), references=photos, nearest={"twin": (1, 0)})
    [found] = described(run)["runs"]
    assert found["nearest"] == [{"column": "twin", "likeness": "closeness", "references": (1, 0), "alarms": ["twins"]}]
    assert "twin" not in found["scores"], "a place has no mean"
    shown = {first.step: [Presence.SHOWN] * 4}
    assert content.scores_by_image(run, shown)["scores"]["twin"] == [[1.0] * 4]
