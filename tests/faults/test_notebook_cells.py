"""Cells that are run twice, errors inside `with`, and what a constructor does: as in a notebook."""

import gc
import subprocess
import sys

import pytest
import torch

from finetune_monitor import FinetuneMonitor, PromptGrid, TensorBoardSink
from finetune_monitor.base.errors import UserError
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.run_directory import lock
from support import tiny
from support.loops import Brightness, steps_of

GRID = PromptGrid(["a photo of sks person"], [0, 1], steps=1, size=(32, 32))


def make(folder, pipeline=None, **settings) -> FinetuneMonitor:
    return FinetuneMonitor(pipeline or tiny.stable_diffusion(), GRID, [Brightness()], folder, every=2, **settings)


def test_the_constructor_renders_nothing_and_start_renders_once(run_folder):
    monitor = make(run_folder)
    assert not monitor.evaluations
    assert not (run_folder / "images").exists()
    assert steps_of(monitor.start()) == [0]
    assert steps_of(monitor.start()) == [0]
    monitor.close()


def test_the_first_step_of_a_monitor_that_was_not_started_is_evaluated_as_what_it_is(run_folder, caplog):
    monitor = make(run_folder)
    for step in range(1, 5):
        monitor.on_step_end(step)
    monitor.close()
    assert steps_of(monitor) == [1, 2, 4]
    assert caplog.text.count("no untouched model to compare with: call start() before the training loop") == 1


def test_step_0_of_a_loop_that_reports_it_is_the_start(run_folder, caplog):
    monitor = make(run_folder)
    for step in range(5):
        monitor.on_step_end(step)
    monitor.close()
    assert steps_of(monitor) == [0, 2, 4]
    assert not caplog.text


def test_a_cell_that_is_run_again_takes_over_and_the_old_monitor_writes_nothing_more(run_folder, caplog):
    first = make(run_folder, sinks=[TensorBoardSink()])
    second = make(run_folder).start()
    assert caplog.text.count("an earlier monitor in this process was not closed; this one takes over") == 1
    with pytest.raises(UserError, match=r"another one in this process has taken over; use the newest one"):
        first.start()
    first.close()
    second.on_step_end(2)
    second.close()
    assert steps_of(second) == [found.step for found in read_run(run_folder).evaluations] == [0, 2]


def test_a_cell_that_may_not_begin_leaves_the_running_monitor_alone(run_folder, caplog):
    running = make(run_folder).start()
    with pytest.raises(UserError, match="holds a run"):
        make(run_folder)
    with pytest.raises(UserError, match="prompt grid is"):
        other = PromptGrid(["a photo of another person"], [0, 1], steps=1, size=(32, 32))
        FinetuneMonitor(tiny.stable_diffusion(), other, [Brightness()], run_folder, resume_step=0)
    running.on_step_end(2)
    running.close()
    assert "takes over" not in caplog.text
    assert [found.step for found in read_run(run_folder).evaluations] == [0, 2]


def test_a_cell_that_is_run_again_after_an_evaluation_resumes_where_it_is_told_to(run_folder):
    first = make(run_folder).start()
    first.on_step_end(2)
    with pytest.raises(UserError, match=r"holds a run with 2 evaluations.*choose another output_dir, or resume"):
        make(run_folder)
    second = make(run_folder, resume_step=2)
    assert steps_of(second) == [0, 2]
    second.on_step_end(4)
    assert second.close().evaluations[-1].step == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python's own, of the unclosed lock
def test_a_monitor_that_nobody_holds_any_longer_gives_its_lock_back(run_folder):
    make(run_folder)
    gc.collect()
    lock(run_folder).close()


def test_another_process_is_still_kept_out(run_folder):
    monitor = make(run_folder)
    code = "import sys; from pathlib import Path; from finetune_monitor.record.run_directory import lock;"
    code += "lock(Path(sys.argv[1]), takes_over=True)"
    found = subprocess.run([sys.executable, "-c", code, str(run_folder)], capture_output=True, text=True, check=False)
    assert "in use by the run with PID" in found.stderr
    monitor.close()
    subprocess.run([sys.executable, "-c", code, str(run_folder)], check=True)


@pytest.mark.parametrize(
    ("error", "reason"), [(ValueError("a bug"), StopReason.FAILED), (KeyboardInterrupt(), StopReason.INTERRUPTED)]
)
def test_an_error_inside_with_closes_the_record_and_says_how_it_ended(error, reason, run_folder):
    with pytest.raises(type(error)), make(run_folder) as monitor:
        monitor.on_step_end(2)
        raise error
    history = read_run(run_folder)
    assert (history.reason, len(history.evaluations)) == (reason, 2)
    lock(run_folder).close()


def test_a_loop_that_ends_closes_once_and_keeps_the_reason_that_it_gives(run_folder):
    with make(run_folder) as monitor:
        monitor.on_step_end(2)
        summary = monitor.close(StopReason.MAX_STEPS)
    assert read_run(run_folder).reason == StopReason.MAX_STEPS
    assert monitor.close() is summary
    with pytest.raises(UserError, match="this monitor was closed"):
        monitor.on_step_end(4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "evaluated"),
    [
        ([3, 6, 9], [0, 3, 6, 9]),
        ([1, 5, 6, 7, 12], [0, 5, 6, 12]),
        ([100], [0, 100]),
        ([2, 2, 3], [0, 2]),
    ],
)
def test_steps_that_jump_over_multiples_are_evaluated_once_each_time(steps, evaluated, run_folder):
    with make(run_folder) as monitor:
        for step in steps:
            monitor.on_step_end(step)
    assert steps_of(monitor) == evaluated


def test_random_numbers_are_untouched_by_start(run_folder):
    state = torch.get_rng_state()
    make(run_folder).start().close()
    assert torch.equal(torch.get_rng_state(), state)
