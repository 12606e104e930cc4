"""Runs with very many evaluations, and very long prompts: what is printed and shown stays small, and work is linear."""

import io
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from finetune_monitor.base.text import LONGEST_CAPTION, caption, some_of
from finetune_monitor.cli import main
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record import pareto
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.sinks import grid_image
from finetune_monitor.sinks.console import LAST_ROWS, MOST_ROWS, print_summary
from finetune_monitor.sinks.grid_image import prompt_strips
from support import runs
from support.scripted import Scripted

LONG = "a photo of sks person " + "word " * 40_000


def many(folder: Path, count: int) -> None:
    """A run with many evaluations of one image, written directly."""
    record = RunRecord(folder, PromptGrid(["a photo of sks person"], seeds=(0,)))
    record.begin(runs.RUN, None, None)
    for index in range(count):
        step, score = 10 * index, 0.2 + (index % 997) / 2000
        scored = tuple(
            ScoredImage(cell, None, {"face_similarity": score, "aesthetic": 5.0}) for cell in record.grid.cells
        )
        row = Evaluation(step, None, 0.0, summarize(scored, {}), scored, decision=Decision(False, None, 70))
        record._evaluations.append(row)
    record._rewrite()
    record.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "run"
    many(folder, 3000)
    return folder


@pytest.mark.slow
def test_show_prints_some_evaluations_and_names_the_others(run, capsys):
    assert main(["show", str(run)]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith("│")]
    assert MOST_ROWS <= len(rows) <= MOST_ROWS + 3  # the best one, and the photos
    assert len(said) < 20_000
    assert "evaluations; print all with finetune-monitor show --all" in " ".join(said.split())
    steps = [int(cells[1]) for line in rows if (cells := line.split("│"))[1].strip().isdecimal()]
    assert steps[0] == 0
    assert 70 in steps  # the best one
    assert steps[-LAST_ROWS:] == list(range(29_990 - 10 * (LAST_ROWS - 1), 30_000, 10))
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) < 1000


@pytest.mark.slow
def test_show_all_prints_each_evaluation_on_a_line(run, capsys):
    assert main(["show", str(run), "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = [int(line.split()[0]) for line in lines if line.split() and line.split()[0].isdecimal()]
    assert steps == list(range(0, 30_000, 10))
    [best] = [line for line in lines if line.endswith("best")]
    assert best.split()[0] == "70"
    assert "\\[" not in "".join(lines)


def test_a_short_run_is_shown_as_before(tmp_path):
    runs.write_run(tmp_path, {0: 0.2, 10: 0.5, 20: 0.4})
    said = io.StringIO()
    print_summary(read_run(tmp_path), Console(file=said))
    assert "--all" not in said.getvalue()
    assert "\\[" not in said.getvalue()


def test_the_pareto_front_is_found_in_linear_work():
    """Each pair is compared once after sorting; the naive comparison took a minute for 100,000 of them."""

    class Counted(float):
        compared = 0

        def __lt__(self, other):
            Counted.compared += 1
            return float.__lt__(self, other)

        def __gt__(self, other):
            Counted.compared += 1
            return float.__gt__(self, other)

    rng = random.Random(0)
    points = {step: (Counted(rng.random()), Counted(rng.random())) for step in range(2000)}
    points |= {2000 + step: (Counted(step), Counted(-step)) for step in range(500)}
    columns = {"a": ScoreColumn(True), "b": ScoreColumn(True)}
    front = pareto._unbeaten(set(points.values()))
    assert Counted.compared < 40 * len(points)
    expected = {
        own
        for own in points.values()
        if not any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in points.values())
    }
    assert front == expected
    assert set(pareto._best_of_both(points, columns, ("a", "b"), ())) == {
        step for step in points if points[step] in front
    }


def test_lists_of_steps_are_cut():
    assert some_of([str(step) for step in range(25)], 3) == "0, 1, 2, and 22 more"
    front = pareto.ParetoFront(("a", "b"), {}, tuple(range(100_000)))
    assert len(str(front)) < 300


@pytest.mark.slow
def test_a_long_prompt_is_short_in_every_view(pipeline, tmp_path, monkeypatch):
    """Measured by what is drawn and written, not by a clock."""
    drawn: list[int] = []
    plain = grid_image._font
    monkeypatch.setattr(grid_image, "_font", lambda text, size: drawn.append(len(text)) or plain(text, size))
    grid = PromptGrid([LONG, LONG + "another"], seeds=(0,), steps=1, size=(32, 32))
    monitor = FinetuneMonitor(pipeline, grid, [Scripted([0.5])], tmp_path / "run", every=1)
    monitor.on_step_end(1)
    monitor.close()
    history = read_run(tmp_path / "run")
    evaluation = history.evaluations[0]
    prompt_strips(evaluation, [Image.new("RGB", (32, 32))] * 2, history.columns)
    assert max(drawn) < 5000
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "page")]) == 0
    data = (tmp_path / "page/data/runs.js").read_text()
    assert len(data) < 50_000
    for image in (tmp_path / "run/images").rglob("*.png"):
        assert image.stat().st_size < 20_000
    for card in tmp_path.rglob("README.md"):
        assert card.stat().st_size < 20_000
    recorded = [json.loads(line)["prompt"] for line in (tmp_path / "run/images.jsonl").read_text().splitlines()]
    assert set(recorded) == {LONG, LONG + "another"}


def test_captions_keep_prompts_apart():
    first, second = caption(LONG), caption(LONG + "another")
    assert first != second
    assert len(first) < LONGEST_CAPTION + 60
    assert caption("a photo") == "a photo"
    assert caption("\ud800" * 1000).startswith("\ud800")
