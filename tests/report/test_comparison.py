"""Paired differences over shared cells: their numbers, what they are said to show, and what cannot be compared."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.cli import main
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary, ScoredImage, StopReason, summarize
from finetune_monitor.record.grid import ELSEWHERE, MAY_DIFFER, PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report.comparison import Difference, at_step, compare, verdict
from finetune_monitor.stats.estimate import Estimate

PROMPTS = ("a photo", "a drawing")
GRID = PromptGrid(PROMPTS, range(4), steps=3, sampler="DDIMScheduler")
METRICS = {
    "face_similarity": {"higher_is_better": True, "bounds": [-1, 1]},
    "face_similarity_held_out": {"higher_is_better": True, "bounds": [-1, 1]},
    "noise": {"higher_is_better": False, "bounds": [0, 1]},
}
STARRED = {
    "face_similarity_stars": ScoreColumn(True, (1, 5), "stars", of="face_similarity", ignores=("held_out",)),
    **{name: replace(each, ignores=(*each.ignores, "thresholds")) for name, each in FaceSimilarity.columns.items()},
}
SAID = {name: replace(column, metric="face_similarity").to_json() for name, column in STARRED.items()}
WEIGHTS = {
    "face_similarity": {
        "recognizer": {"id": "here/vggface2", "sha256": "aa"},
        "references": [{"file": "a.png", "sha256": "01"}, {"file": "b.png", "sha256": "02"}],
        "held_out": [{"file": "z.png", "sha256": "09"}],
        "notice": "demo scores",
    }
}


def write(folder: Path, scores: dict[int, dict[str, list[float]]], grid: PromptGrid = GRID, **run: Any) -> Path:
    """Record a run: step to the cells' scores by name; the last step is the best."""
    record = RunRecord(folder, grid)
    record.begin({"metrics": METRICS, "columns": SAID, "weights": WEIGHTS, **run}, None, None)
    best = max(scores)
    for step, columns in scores.items():
        images = tuple(
            ScoredImage(cell, None, {name: values[cell.index] for name, values in columns.items()})
            for cell in grid.cells
        )
        decision = Decision(False, None, best)
        record.append(Evaluation(step, None, 1.0, summarize(images, {}), images, {}, decision))
    record.end(RunSummary(record.evaluations, "face_similarity", best, StopReason.MAX_STEPS))
    record.close()
    return folder


def around(score: float) -> list[float]:
    """Scores of all cells that differ so little that three digits do not show it."""
    return [score - 1e-5, score + 1e-5] * 4


def last(folder: Path):
    history = read_run(folder)
    return at_step(history, history.evaluations[-1].step)


def differences(first: Path, second: Path) -> dict[str, Difference]:
    return {found.name: found for found in compare(last(first), last(second)).differences}


def test_differences_are_those_of_the_same_cells_and_surer_than_those_of_the_means(tmp_path):
    random = np.random.default_rng(0)
    level = random.normal(0, 1, 8)  # how hard a cell is, in both runs
    a, b = level, level + 0.1 + random.normal(0, 0.01, 8)
    first, second = (write(tmp_path / name, {0: {"noise": list(values)}}) for name, values in (("a", a), ("b", b)))
    found = differences(first, second)["noise"]
    assert (found.first, found.second) == pytest.approx((a.mean(), b.mean()))
    assert found.change.mean == pytest.approx((b - a).mean())
    assert found.change.n == 8
    assert 0 < found.change.low < found.change.mean < found.change.high < 0.2  # unpaired it would reach beyond 1
    turned = differences(second, first)["noise"].change
    assert turned.mean == pytest.approx(-found.change.mean)


def test_only_cells_that_both_have_and_that_were_measured_in_both_count(tmp_path):
    nan = math.nan
    first = write(tmp_path / "a", {0: {"noise": [nan, 1, 2, 3, 4, 5, 6, 7]}})
    grid = replace(GRID, prompts=("a drawing", "a cat", "a photo"), seeds=(3, 2, 9))
    second = write(tmp_path / "b", {0: {"noise": [1, nan, 0, 0, 0, 0, 5, 7, 0]}}, grid)
    found = compare(last(first), last(second))
    assert found.shared == 4  # a photo and a drawing, seeds 2 and 3
    [noise] = found.differences
    # a drawing, seed 3: 7 to 1; a photo, seed 3: 3 to 5; a photo, seed 2: 2 to 7
    assert (noise.change.n, noise.change.missing) == (3, 1)
    assert noise.change.mean == pytest.approx((-6 + 2 + 5) / 3)
    assert (noise.first, noise.second) == pytest.approx((12 / 3, 13 / 3))


def test_a_score_that_was_never_measured_in_both_is_missing_and_not_zero(tmp_path):
    nan = math.nan
    first = write(tmp_path / "a", {0: {"noise": [1.0] * 4 + [nan] * 4}})
    second = write(tmp_path / "b", {0: {"noise": [nan] * 4 + [1.0] * 4}})
    found = differences(first, second)["noise"]
    assert (found.change.n, found.change.missing) == (0, 8)
    assert math.isnan(found.first)
    assert math.isnan(found.change.mean)
    assert verdict(found) == "no image was measured in both"


@pytest.mark.parametrize(
    "changes", [{"negative_prompt": "blur"}, {"seeds": (8, 9)}, {"prompts": ("A photo",)}], ids=lambda c: next(iter(c))
)
def test_runs_without_a_shared_cell_cannot_be_compared(tmp_path, changes):
    grid = replace(GRID, **changes)
    first, second = write(tmp_path / "a", {0: {}}), write(tmp_path / "b", {0: {}}, grid)
    with pytest.raises(UserError, match="share no cell of their grids, because no prompt and seed is in both"):
        compare(last(first), last(second))


@pytest.mark.parametrize(
    "changes",
    [{"steps": 4}, {"guidance": 3.0}, {"sampler": "PNDMScheduler"}, {"karras": True}, {"size": (64, 64)}],
    ids=lambda c: next(iter(c)),
)
def test_images_that_are_sampled_otherwise_are_not_the_same_cell(tmp_path, changes):
    first, second = write(tmp_path / "a", {0: {}}), write(tmp_path / "b", {0: {}}, replace(GRID, **changes))
    with pytest.raises(UserError, match=rf"sampling differs \({next(iter(changes))}: "):
        compare(last(first), last(second))


def change(mean: float, low: float, high: float, n: int = 8, better: bool | None = True) -> Difference:
    return Difference("x", 0.0, mean, Estimate(mean, low, high, n, 0), better)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (change(0.2, 0.1, 0.3), "the second is higher by 0.200 [0.100, 0.300], which is better"),
        (change(-0.2, -0.3, -0.1), "the second is lower by 0.200 [0.100, 0.300], which is worse"),
        (change(-0.2, -0.3, -0.1, better=False), "the second is lower by 0.200 [0.100, 0.300], which is better"),
        (change(0.2, 0.1, 0.3, better=None), "the second is higher by 0.200 [0.100, 0.300]"),
        (
            change(0.2, -0.1, 0.3),
            "no significant difference in these 8 images: 0.200 [-0.100, 0.300] is compatible with none",
        ),
        (
            change(0.2, math.nan, math.nan, n=1),
            "higher by 0.200 in the only image that was measured in both, which may be chance",
        ),
        (change(0.2, math.nan, math.nan, n=4), "higher by 0.200 in these 4 images, which may be chance"),
        (change(0.0, math.nan, math.nan, n=2), "no difference on average in these 2 images, which may be chance"),
        (replace(change(0.0, 0.0, 0.0), is_same=True), "the same in every image"),
        (replace(change(0.0, -0.3, 0.3), is_same=True), "the same in every image"),
        (replace(change(0.0, math.nan, math.nan, n=1), is_same=True), "the same in every image"),
        (replace(change(0.2, 0.1, 0.3), caution="other photos"), "the second is higher by 0.200 [0.100, 0.300]"),
        (change(0.2, 0.2, 0.2), "the second is higher by 0.200 [0.200, 0.200], which is better"),
    ],
)
def test_what_the_images_are_said_to_show(found, said):
    assert verdict(found) == said


COLUMNS = {
    name: [0.5] * 8
    for name in (
        "face_similarity",
        "face_similarity_held_out",
        "faces_found",
        "face_similarity_zero_filled",
        "face_similarity_stars",
    )
}
REFERENCES = [{"file": "b.png", "sha256": "02"}]


@pytest.mark.parametrize(
    ("changed", "cautioned"),
    [
        ({"recognizer": {"id": "there/vggface2", "sha256": "aa"}}, set()),  # the same file elsewhere
        ({"references": [{"file": "x/b", "sha256": "02"}, {"file": "x/a", "sha256": "01"}]}, set()),
        ({"notice": "another"}, set()),
        ({"recognizer": {"id": "here/vggface2", "sha256": "bb"}}, set(COLUMNS) - {"faces_found"}),
        ({"references": REFERENCES}, set(COLUMNS) - {"faces_found", "face_similarity_held_out"}),
        ({"held_out": REFERENCES}, {"face_similarity_held_out"}),
        ({"thresholds": [1, 2, 3, 4]}, {"face_similarity_stars"}),
    ],
)
def test_scores_on_another_scale_are_compared_with_a_caution(tmp_path, changed, cautioned):
    weights = {"face_similarity": {**WEIGHTS["face_similarity"], **changed}}
    first = write(tmp_path / "a", {0: COLUMNS})
    found = differences(first, write(tmp_path / "b", {0: COLUMNS}, weights=weights))
    assert {name for name, each in found.items() if each.caution} == cautioned
    assert len(found) == 5


def test_a_step_that_was_not_evaluated_is_refused_with_those_that_were(tmp_path):
    history = read_run(write(tmp_path, {0: {}, 50: {}}))
    assert history.best_step == 50
    with pytest.raises(UserError, match=r"step 3 was not evaluated; expected one of 0, 50"):
        at_step(history, 3)


def test_a_run_that_goes_on_has_the_best_step_of_its_last_decision(tmp_path):
    write(tmp_path, {0: {}, 50: {}})
    content = json.loads((tmp_path / "run.json").read_text())
    del content["ended"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_run(tmp_path).best_step == 50


def test_the_command_compares_the_best_and_the_last_steps(tmp_path, capsys):
    first = write(tmp_path / "a", {0: {"noise": [0.0] * 8, "x": [1.0] * 8}, 50: {"noise": [0.5] * 8}})
    second = write(tmp_path / "b", {0: {"noise": [1.0] * 8}, 70: {"noise": around(2.0)}})
    assert main(["compare", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    assert out.count("At each run's") == 1
    assert "At each run's best step, which is its last:" in out
    assert f"first:   {first}, step 50: 8 of its 8 cells are in both" in out
    assert f"second:  {second}, step 70: 8 of its 8 cells are in both" in out
    assert "1.500 [1.500, 1.500]" in out
    assert "8 of 8 │  lower" in out
    assert "noise: the second is higher by 1.500 [1.500, 1.500], which is worse" in out
    assert "do not cover other training runs" in out
    content = json.loads((first / "run.json").read_text())
    content["ended"]["best_step"] = 0
    (first / "run.json").write_text(json.dumps(content))
    assert main(["compare", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    assert "At each run's best step:" in out
    assert "At each run's last step:" in out
    assert "note: measured in only one of the two: x" in out
    content["ended"]["best_metric"] = "noise"
    (first / "run.json").write_text(json.dumps(content))
    assert main(["compare", str(first), str(second)]) == 0
    assert "At each run's best step (by noise and by face_similarity):" in capsys.readouterr().out


def test_two_steps_of_one_run_and_a_caution_on_the_command_line(tmp_path, capsys):
    run = write(tmp_path / "a", {0: {"noise": [0.5] * 8}, 50: {"noise": around(0.25)}})
    assert main(["compare", str(run), str(run), "--step", "0", "50"]) == 0
    assert "noise: the second is lower by 0.250 [0.250, 0.250], which is better" in capsys.readouterr().out
    other = write(tmp_path / "b", {0: COLUMNS}, weights={})
    same = write(tmp_path / "c", {0: COLUMNS})
    assert main(["compare", str(other), str(same), "--step", "0"]) == 0
    assert "note: face_similarity_held_out: the runs' scores are not on the same scale: different" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "found twice; choose two of its steps: --step S S"),
        (["--step", "0", "1", "2"], "--step: found 3 steps, expected one for both runs, or one each"),
        (["--step", "9"], "step 9 was not evaluated; expected one of 0"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, capsys, more, said):
    run = str(write(tmp_path, {0: {}}))
    assert main(["compare", run, run, *more]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [("grid", 3), ("weights", []), ("metrics", "x"), ("ended", 1), ("weights", {"face_similarity": 3})],
)
def test_a_damaged_run_is_named(tmp_path, capsys, key, value):
    first, second = (str(write(tmp_path / name, {0: {"face_similarity": [1.0] * 8}})) for name in "ab")
    path = Path(second) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert main(["compare", first, second]) == 2
    assert f"run.json: {key}: damaged (" in capsys.readouterr().err


def test_a_run_without_an_evaluation_is_named(tmp_path, capsys):
    first, second = write(tmp_path / "a", {0: {}}), tmp_path / "b"
    record = RunRecord(second, GRID)
    record.begin({}, None, None)
    record.close()
    assert main(["compare", str(first), str(second)]) == 2
    assert f"{second}: has no evaluation yet" in capsys.readouterr().err


def test_the_command_prints_the_alarms_of_both_and_compares_no_note(tmp_path, capsys):
    columns = {
        **SAID,
        "noise": ScoreColumn(False, alarm=0.2, says="it is noise", metric="noise").to_json(),
        "place": ScoreColumn(None, role="note", metric="noise").to_json(),
    }
    scores = {"noise": around(0.5), "place": [1.0] * 8}
    first, second = (write(tmp_path / name, {50: scores}, columns=columns) for name in "ab")
    rows = [json.loads(line) for line in (second / "evaluations.jsonl").read_text().splitlines()]
    (second / "evaluations.jsonl").write_text(json.dumps({**rows[0], "alarms": ["noise"]}) + "\n")
    assert main(["compare", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if "ALARM" in line]
    assert line == "         ALARM: noise is 0.500 [0.500, 0.500], above 0.2: it is noise"
    assert out.index("second:") < out.index(line)
    assert "place" not in out


def test_scores_on_a_small_scale_are_shown_with_the_decimals_of_their_change(tmp_path, capsys):
    run = write(tmp_path / "a", {0: {"noise": [1e-6] * 8}, 50: {"noise": [3e-6] * 8}})
    assert main(["compare", str(run), str(run), "--step", "0", "50"]) == 0
    assert "│ 0.0000010 │ 0.0000030 │ " in capsys.readouterr().out


def test_images_that_a_score_does_not_cover_do_not_count_and_scores_without_images_are_named(tmp_path, capsys):
    probed = replace(GRID, probe_prompts=("a cat",), images_per_probe=2)
    run, nan = tmp_path / "a", math.nan
    write(run, {0: {"noise": [0.5] * 8 + [nan] * 2}, 50: {"noise": [0.25] * 8 + [nan] * 2}}, probed)
    for name in ("images", "evaluations"):
        rows = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
        for row in rows:
            if name == "evaluations":
                row["scores"]["leakage"] = row["scores"]["noise"]
            elif "noise" in row["scores"] and row["scores"]["noise"] is None:
                del row["scores"]["noise"]
        (run / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", str(run), str(run), "--step", "0", "50"]) == 0
    out = capsys.readouterr().out
    assert "step 0: 10 of its 10 cells are in both" in out
    assert "8 of 8 │  lower" in out
    assert "note: not compared, because no image has a score of its own: leakage" in out


def test_cells_of_other_tools_may_differ_between_runs(tmp_path, capsys):
    grid = replace(GRID, sampler=ELSEWHERE)
    first, second = (write(tmp_path / name, {0: COLUMNS, 50: COLUMNS}, grid) for name in "ab")
    assert main(["compare", str(first), str(first), "--step", "0", "50"]) == 0
    assert MAY_DIFFER not in capsys.readouterr().out
    assert main(["compare", str(first), str(second)]) == 0
    assert f"note: {MAY_DIFFER}" in capsys.readouterr().out


def test_a_share_that_changes_in_every_image_has_an_interval(tmp_path):
    columns = {"recognized": ScoreColumn(True, (0.0, 1.0), metric="recognized", is_share=True).to_json()}
    told = {"columns": columns, "metrics": {"recognized": {"higher_is_better": True, "bounds": [0, 1]}}}
    grid = replace(GRID, prompts=PROMPTS[:1], seeds=tuple(range(12)))
    none, all_ = (
        write(tmp_path / name, {0: {"recognized": [score] * 12}}, grid, **told) for name, score in (("a", 0), ("b", 1))
    )
    found = differences(none, all_)["recognized"]
    assert verdict(found) == "the second is higher by 1.000 [0.587, 1.000], which is better"
    same = differences(all_, write(tmp_path / "c", {0: {"recognized": [1] * 12}}, grid, **told))["recognized"]
    assert (same.change.low, same.change.high) == pytest.approx((-0.198, 0.198), abs=5e-4)
    assert verdict(same) == "the same in every image"
