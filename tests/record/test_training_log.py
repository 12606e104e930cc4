"""The loss and learning rate in the record: averaged, thinned, resumed, and never in the way of a training."""

import json
import math
import stat

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.run_directory import TRAINING
from finetune_monitor.record.training_log import MOST, STRETCH, TrainingLog, TrainingRow, merged, read_training


def filled(folder, until, since=1, resume_step=None, loss=float, rate=None):
    log = TrainingLog(folder, resume_step)
    for step in range(since, until + 1):
        log.add(step, loss(step), rate)
    log.flush()
    return log


def test_a_row_is_the_mean_loss_of_its_stretch_and_the_last_rate(tmp_path):
    log = TrainingLog(tmp_path)
    for step in range(1, 26):
        log.add(step, step, 0.1 * step)
    log.flush()
    log.flush()
    assert read_training(tmp_path) == [
        TrainingRow(10, 5.5, 1.0),
        TrainingRow(20, 15.5, 2.0),
        TrainingRow(25, 23.0, 2.5),
    ]
    assert stat.S_IMODE((tmp_path / TRAINING).stat().st_mode) == 0o600


def test_a_loop_without_losses_leaves_no_file(tmp_path):
    TrainingLog(tmp_path).flush()
    assert read_training(tmp_path) == []
    assert not (tmp_path / TRAINING).exists()


def test_steps_that_jump_get_a_row_each(tmp_path):
    log = TrainingLog(tmp_path)
    for step in (30, 60, 60, 50, 90):
        log.add(step, step)
    assert [row.step for row in read_training(tmp_path)] == [30, 60, 90]


@pytest.mark.parametrize("resume_step", [None, 100])
def test_means_of_several_steps_count_as_many_times(tmp_path, resume_step):
    start = resume_step or 0
    filled(tmp_path, start)
    log = TrainingLog(tmp_path, resume_step)
    for step, mean_since_the_last_call in ((3, 2.0), (6, 5.0), (9, 8.0), (10, 10.0)):
        log.add(start + step, mean_since_the_last_call)
    assert (read_training(tmp_path)[-1].step, read_training(tmp_path)[-1].loss) == (start + 10, 5.5)


def test_what_is_not_finite_is_missing_and_not_zero(tmp_path):
    log = TrainingLog(tmp_path)
    for step in range(1, 11):
        log.add(step, math.inf if step == 3 else 2.0, math.nan)
    for step in range(11, 21):
        log.add(step, math.nan)
    first, second = read_training(tmp_path)
    assert first.loss == 2.0
    assert math.isnan(first.learning_rate)
    assert math.isnan(second.loss)
    assert json.loads((tmp_path / TRAINING).read_text().splitlines()[1])["loss"] is None


def test_a_long_run_is_thinned_and_keeps_its_mean(tmp_path):
    steps = 3 * MOST * STRETCH
    log = TrainingLog(tmp_path)
    for step in range(STRETCH, steps + 1, STRETCH):
        log.add(step, step)
    log.flush()
    rows = read_training(tmp_path)
    assert MOST / 2 < len(rows) <= MOST
    assert rows[-1].step == steps
    before = [0, *(row.step for row in rows)]
    total = sum((row.step - start) * row.loss for start, row in zip(before, rows, strict=False))
    assert total / steps == pytest.approx((steps + STRETCH) / 2)


def test_rows_of_unequal_length_are_weighted_by_their_steps():
    rows = [TrainingRow(10, 1.0, 0.1), TrainingRow(12, 4.0, 0.2), TrainingRow(20, math.nan, 0.3)]
    assert merged(rows, 20) == [TrainingRow(20, 1.5, 0.3)]


def test_a_resumed_run_drops_the_rows_after_its_step_and_a_new_one_all(tmp_path):
    filled(tmp_path, 50, rate=0.1)
    filled(tmp_path, 40, since=31, resume_step=30, loss=lambda _: 7.0)
    assert [(row.step, row.loss) for row in read_training(tmp_path)] == [(10, 5.5), (20, 15.5), (30, 25.5), (40, 7.0)]
    TrainingLog(tmp_path)
    assert read_training(tmp_path) == []


def test_a_truncated_last_row_is_left_out_and_a_damaged_one_is_named(tmp_path):
    filled(tmp_path, 30)
    path = tmp_path / TRAINING
    path.write_text(path.read_text()[:-5])
    assert [row.step for row in read_training(tmp_path)] == [10, 20]
    path.write_text('{"step": 10, "loss": []}\n{"step": 20, "loss": 1.0, "learning_rate": null}\n')
    with pytest.raises(UserError, match=r"training.jsonl:1: damaged row"):
        read_training(tmp_path)
    filled(tmp_path, 40, since=31, resume_step=30)
    assert [row.step for row in read_training(tmp_path)] == [31, 40], "none is worth refusing to resume"


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    run = tmp_path / "run"
    run.mkdir()
    (run / TRAINING).symlink_to(elsewhere)
    filled(run, 20)
    assert not elsewhere.exists()
    assert len(read_training(run)) == 2


def test_a_file_that_cannot_be_rewritten_at_first_is_rewritten_with_the_next_row(tmp_path):
    (tmp_path / TRAINING).mkdir()
    log = TrainingLog(tmp_path)
    with pytest.raises(OSError, match="directory"):
        log.add(10, 1.0)
    (tmp_path / TRAINING).rmdir()
    log.add(20, 2.0)
    assert [(row.step, row.loss) for row in read_training(tmp_path)] == [(10, 1.0), (20, 2.0)]
