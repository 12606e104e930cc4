"""The closing table: whole numbers, the best step, the reason, and where to look."""

import io
import json
import math
import re
import shlex
import subprocess
from dataclasses import replace

import pytest
from rich.console import Console

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import NOTE, step_folder
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.sinks.console import print_summary, scores_in_words
from finetune_monitor.stats.estimate import Estimate
from support.runs import CEILING, GRID, NOTICE, RUN, evaluation, write_run


def printed(folder, width: int = 80, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    print_summary(read_run(folder), console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_one_whole_line_an_evaluation_where_there_is_no_terminal(tmp_path, width):
    write_run(tmp_path, {0: 0.1, 300: 0.4, 600: 0.3})
    text = printed(tmp_path, width)
    assert re.search(r" 300 .* 0\.415 \[0\.\d{3}, 0\.\d{3}\] .*5\.000 \[5\.000, 5\.000\].* best", text)
    assert re.search(r"   0 .* 0\.115 \[.* floor", text)
    assert re.search(r"photos .* 0\.900 \[0\.850, 0\.950\] .* ceiling", text)
    assert "best" not in next(line for line in text.splitlines() if " 600 " in line)


def test_a_narrow_terminal_gets_two_lines_an_evaluation(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.4})
    table = printed(tmp_path, 72, terminal=True).split("The 95% intervals")[0]
    assert re.search(r" 300 .* 0\.415 ", table)
    assert re.search(r" \[0\.\d{3}, 0\.\d{3}\] .* \[5\.000, 5\.000\] ", table)
    assert all(len(line) <= 72 for line in table.splitlines() if "│" in line)


@pytest.mark.parametrize("terminal", [True, False])
def test_there_is_one_table_and_it_is_no_wider_than_a_terminal(tmp_path, terminal):
    many_scores(tmp_path)
    text = printed(tmp_path, 80, terminal)
    lines = [line for line in text.splitlines() if "│" in line or "┃" in line]
    assert all(len(line) <= 80 for line in lines)
    assert len(re.findall(r"^│\s+300 ", text, re.MULTILINE)) == 1
    assert f"Not in the table: 21 scores; print all with finetune-monitor show --all {tmp_path}\n" in text


def test_the_table_has_the_score_that_decides_and_those_that_sounded_an_alarm(tmp_path):
    many_scores(tmp_path)
    text = printed(tmp_path)
    assert re.findall(r"score \d+", next(line for line in text.splitlines() if line.startswith("┃"))) == [
        "score 0",
        "score 7",
        "score 20",
    ]


def many_scores(folder) -> None:
    """A run with two evaluations of 24 scores; the eighth decides, and the alarm of another one sounds."""
    record = RunRecord(folder, GRID)
    metrics = {f"score_{i}": {"higher_is_better": True, "bounds": (-1.0, 9.0)} for i in range(24)}
    columns = {"score_20": {"role": "score", "alarm": 9.0, "says": "it is low"}}
    record.begin({**RUN, "metrics": metrics, "columns": columns, "best_metric": "score_7"}, None, None)
    scores = {f"score_{i}": Estimate(0.1 * i, 0.05 * i, 0.15 * i, 4, 0) for i in range(24)}
    for step in (0, 300):
        record.append(replace(evaluation(step, 0.4), scores=scores, alarms=("score_20",) if step else ()))
    record.close()


@pytest.mark.parametrize("reason", list(StopReason))
def test_the_reason_is_said_in_words(tmp_path, reason):
    write_run(tmp_path, {0: 0.1}, reason)
    assert reason.words in printed(tmp_path)


def test_the_pareto_steps_and_the_kept_weights_are_named_with_the_command_that_exports_them(tmp_path):
    folder = tmp_path / "my run"
    write_run(folder, {0: 0.1, 300: 0.4, 600: 0.3})
    assert "weights kept" not in printed(folder)
    for step in (300, 600):
        (step_folder(folder, step)).mkdir(parents=True)
        (step_folder(folder, step) / NOTE).write_text(json.dumps({"step": step}))
    text = printed(folder)
    assert "Pareto steps:        300 (no other step is better in both face_similarity and aesthetic)" in text
    assert f"weights kept:        300, 600; finetune-monitor export '{folder}' --step STEP --to FILE" in text


def test_a_run_that_has_not_ended(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.4})
    run = json.loads((tmp_path / "run.json").read_text())
    del run["ended"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "the run is in progress, or was killed." in printed(tmp_path)
    assert re.search(r" 300 .* best", printed(tmp_path))


def test_a_run_before_its_first_evaluation(tmp_path):
    record = RunRecord(tmp_path, GRID)
    record.begin(RUN, None, None)
    record.close()
    assert "No evaluation has been recorded yet, so there is nothing to judge." in printed(tmp_path)


def test_what_was_not_measured_is_a_dash(tmp_path):
    record = RunRecord(tmp_path, GRID)
    record.begin({}, None, None)
    record.append(evaluation(0, faces=0))
    record.close()
    assert re.search(r" 0 .* - .* 0\.000 .* 5\.000 ", printed(tmp_path))
    assert f"{CEILING.mean:.3f}" not in printed(tmp_path)


def test_notices_and_hints_are_shown_where_they_apply(tmp_path):
    write_run(tmp_path, {0: 0.1, 300: 0.4})
    assert NOTICE in printed(tmp_path)
    for hint in ("tensorboard --logdir", "wandb sync", "best weights"):
        assert hint not in printed(tmp_path)
    for folder in ("tensorboard", "wandb/offline-run-1-a", "best"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "best" / NOTE).write_text(json.dumps({"step": 300}))
    text = printed(tmp_path)
    assert f"tensorboard --logdir {tmp_path}/tensorboard --samples_per_plugin images=1000\n" in text
    assert f"wandb sync {tmp_path}/wandb/offline-run-*\n" in text
    assert f"{tmp_path}/best\n" in text
    (tmp_path / "best" / NOTE).write_text(json.dumps({"step": 600}))
    assert "best weights" not in printed(tmp_path)


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    folder = tmp_path / "[bold]x["
    write_run(folder, {0: 0.1})
    assert "[bold]x[" in printed(folder).replace("\n", "")


STARS = Estimate(3.5, 3.25, 3.75, 4, 0)


def starred_run(folder) -> None:
    """Both metrics have stars: 3.5, and none where there is no face."""
    bounds = {"higher_is_better": True, "bounds": (1.0, 5.0)}
    stars = {f"{name}_stars": bounds for name in RUN["metrics"]}
    record = RunRecord(folder, GRID)
    told = {f"{name}_stars": {"role": "stars", "of": name} for name in RUN["metrics"]}
    run = {**RUN, "metrics": {**RUN["metrics"], **stars}, "columns": {**RUN["columns"], **told}}
    record.begin(run, None, None)
    for step, faces in ((0, 0), (300, 4)):
        found = evaluation(step, 0.4, faces)
        graded = {f"{name}_stars": STARS if found.scores[name].n else found.scores[name] for name in RUN["metrics"]}
        order = [column for name in found.scores for column in (name, f"{name}_stars")]
        both = {**found.scores, **graded}
        record.append(replace(found, scores={name: both[name] for name in order if name in both}))
    record.close()


def test_stars_stand_in_a_column_beside_their_score(tmp_path):
    starred_run(tmp_path)
    text = printed(tmp_path, 160, terminal=True)
    assert re.search(r"step . +face similarity . +stars . +faces found . +aesthetic . +stars ", text)
    assert re.search(r" 300 . 0\.415 \[0\.\d{3}, 0\.\d{3}\] . 3\.50 \[3\.25, 3\.75\] . ", text)
    assert re.search(r"   0 . +- . +- . ", text)
    assert re.search(r"photos . 0\.900 \[0\.850, 0\.950\] . +- . ", text)


def test_on_a_narrow_terminal_stars_stand_below_their_score(tmp_path):
    starred_run(tmp_path)
    table = printed(tmp_path, 72, terminal=True).split("The 95% intervals")[0]
    lines = [line for line in table.splitlines() if "│" in line]
    assert all(len(line) <= 72 for line in lines)
    [first] = [index for index, line in enumerate(lines) if " 300 " in line]
    assert re.search(r" 0\.415 .* 5\.000 ", lines[first])
    assert re.search(r" \[0\.\d{3}, 0\.\d{3}\] .* \[5\.000, 5\.000\] ", lines[first + 1])
    assert re.search(r" 3\.50 stars .* 3\.50 stars ", lines[first + 2])
    assert re.search(r" \[3\.25, 3\.75\] .* \[3\.25, 3\.75\] ", lines[first + 3])


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (Estimate(0.5, 0.4, 0.6, 4, 0), "x 0.500 [0.400, 0.600]"),
        (Estimate(0.5, 0.4, 0.6, 3, 1), "x 0.500 [0.400, 0.600] (3 of 4 images)"),
        (Estimate(0.5, math.nan, math.nan, 1, 0), "x 0.500"),
        (Estimate(math.nan, math.nan, math.nan, 0, 4), "x not measured"),
    ],
)
def test_a_score_in_words(score, said):
    assert scores_in_words({"x": score}, {}) == said


def test_stars_are_said_with_their_score():
    score, one = Estimate(0.5, 0.4, 0.6, 3, 1), Estimate(2.0, math.nan, math.nan, 1, 3)
    columns = {f"{name}_stars": ScoreColumn(role="stars", of=name) for name in ("x", "z")}
    scores = {"x": score, "y_stars": score, "x_stars": STARS, "z": score, "z_stars": one}
    assert scores_in_words(scores, columns) == (
        "x 0.500 [0.400, 0.600] = 3.50 [3.25, 3.75] stars (3 of 4 images), "
        "y_stars 0.500 [0.400, 0.600] (3 of 4 images), "
        "z 0.500 [0.400, 0.600] = 2.00 stars (3 of 4 images)"
    )


def test_a_reason_of_a_rule_of_the_users_own_is_shown_as_it_is(tmp_path):
    write_run(tmp_path, {0: 0.1}, "five o'clock")
    assert "The run ended at step 0: five o'clock." in printed(tmp_path)


def test_printed_commands_can_be_pasted_into_a_shell(tmp_path):
    folder = tmp_path / "Ana's run; 2"
    write_run(folder, {0: 0.1})
    (folder / "tensorboard").mkdir()
    (folder / "wandb/offline-run-1").mkdir(parents=True)
    lines = printed(folder, 400).splitlines()
    [logdir] = [line.partition("tensorboard --logdir ")[2] for line in lines if "--logdir" in line]
    assert shlex.split(logdir)[0] == str(folder / "tensorboard")
    [sync] = [line.partition("wandb sync ")[2] for line in lines if "wandb sync" in line]
    expanded = subprocess.run(["sh", "-c", f"ls -d {sync}"], capture_output=True, text=True, check=True)
    assert expanded.stdout.strip() == str(folder / "wandb/offline-run-1")
