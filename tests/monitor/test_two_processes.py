"""All processes work, one writes, and a process that fails its share leaves the others none the worse."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_monitor.record.history import read_run
from support import preloaded
from support.places import ROOT
from support.processes import GRID, PAIRS, Brightness, watch
from support.tiny import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launch(tmp_path_factory, tiny_model, photos) -> tuple[Path, list[dict]]:
    """Folder of the runs, and what each of two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    config = folder / "config.yaml"
    config.write_text(tiny_config(folder, tiny_model, photos))
    command = [preloaded.python(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": "tests"}
    command += ["-m", "support.processes", str(folder), str(config)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture
def launched(launch) -> tuple[Path, list[dict]]:
    """Folder of the runs, and what each of two processes saw while it watched."""
    folder, seen = launch
    return folder, [process["found"] for process in seen]


def test_every_process_gets_the_same_scores_and_decisions(launched):
    _, (first, second) = launched
    assert json.dumps(first) == json.dumps(second)


def test_the_record_is_that_of_one_process(launched, tmp_path):
    folder, (first, _) = launched
    alone = watch(tmp_path / "alone", Brightness())
    assert alone["stops"] == first["same"]["stops"]
    ours, theirs = read_run(tmp_path / "alone"), read_run(folder / "same")
    assert theirs.run["processes"] == 2
    assert theirs.run["grid"] == ours.run["grid"]
    assert [evaluation.step for evaluation in theirs.evaluations] == [
        evaluation.step for evaluation in ours.evaluations
    ]
    for one, two in zip(ours.evaluations, theirs.evaluations, strict=True):
        assert [image.cell for image in one.images] == [image.cell for image in two.images]
        for image, other in zip(one.images, two.images, strict=True):
            assert other.scores == pytest.approx(image.scores, abs=0.05)
            assert (folder / "same" / other.file).is_file()
            assert other.scores["apart"] > 0
        assert two.samples == one.samples != {}  # those of the first process


@pytest.mark.parametrize("failure", ["metric_fails", "render_fails"])
def test_a_process_that_fails_its_share_leaves_it_missing_and_nobody_waiting(launched, failure):
    folder, (first, _) = launched
    whole, partial = first["same"]["scores"], first[failure]["scores"]
    expected = {cell: math.nan if index % 2 else whole[cell] for index, cell in enumerate(whole)}
    assert partial == pytest.approx(expected, nan_ok=True)
    estimate = read_run(folder / failure).evaluations[0].scores["brightness"]
    assert (estimate.n, estimate.missing) == (3, 3)


def test_requests_are_carried_out_by_all_processes_at_the_same_step(launched):
    _, (first, second) = launched
    why = "it was stopped by request; run the same command to continue"
    assert first["steered"] == {"held": 20, "stopped": 30, "why": why, "steps": [0, 10]}
    assert second["steered"] == first["steered"]


def test_more_processes_than_cells(launched):
    folder, (first, _) = launched
    assert len(first["one_cell"]["scores"]) == 1
    assert read_run(folder / "one_cell").evaluations[0].scores["brightness"].n == 1


def test_all_processes_render_at_full_quality(launched):
    run = read_run(launched[0] / "fast")
    [found] = run.full_quality
    assert found.step == run.evaluations[-1].step
    assert len(found.images) == len(GRID.cells)
    assert all((run.output_dir / image.file).is_file() for image in found.images)


def test_the_recorded_seconds_are_those_of_the_slowest(launched):
    folder, _ = launched
    assert read_run(folder / "slow").evaluations[0].seconds["score"] >= 1
    assert read_run(folder / "same").evaluations[0].seconds["score"] < 1


def test_clocks_that_disagree_do_not_part_the_processes(launched):
    _, (first, _) = launched
    assert first["clocks"]["steps"] == [0, 1]
    assert len(GRID.cells) == len(first["clocks"]["scores"])


def test_a_loop_of_ones_own_over_a_wrapped_denoiser(launched):
    folder, (first, second) = launched
    found = first["wrapped"]
    assert found["watched"] == found["alone"] == second["wrapped"]["watched"]
    assert len(set(found["scores"])) == 3
    assert found["scores"][0] == pytest.approx(read_run(folder / "same").evaluations[0].scores["brightness"].mean)


@pytest.mark.parametrize(("training", "watched"), [pair for pair in PAIRS if pair[1] != "alone"])
def test_watching_does_not_change_what_two_processes_learn(launch, training, watched):
    folder, seen = launch
    names = (f"{training}-{watched}", f"{training}-alone")
    ours, theirs = (load_file(folder / name / "checkpoints/step-000006/weights.safetensors") for name in names)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for process in seen:
        assert process["losses"][names[0]] == process["losses"][names[1]]
    assert seen[0]["losses"][names[0]] != seen[1]["losses"][names[0]]
    assert len(read_run(folder / names[0]).evaluations) > 2
