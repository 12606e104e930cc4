"""The monitor in a loop of the user's own: what it records, shows, decides and survives."""

import json
import math
import shutil
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from finetune_monitor import (
    Divergence,
    FinetuneMonitor,
    Guard,
    Patience,
    Plateau,
    PromptGrid,
    ReportPage,
    TensorBoardSink,
)
from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.monitor.budget import Budget
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import rejected_steps
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.png import PngEncoder
from finetune_monitor.record.training_log import read_training
from support import tiny
from support.scripted import trained

GRID = PromptGrid(["a photo of sks person", "a cat"], [0, 1], steps=2)


class Brightness:
    """A metric of the user's own, with no more than the contract asks for."""

    name = "brightness"
    higher_is_better = True
    bounds = (0.0, 255.0)

    def score(self, images: Sequence[Image.Image], cells) -> dict[str, np.ndarray]:
        return {self.name: np.array([np.asarray(image).mean() for image in images], dtype=np.float64)}


def make(pipeline, folder, **arguments) -> FinetuneMonitor:
    settings = {"grid": GRID, "metrics": [Brightness()], "every": 2, "output_dir": folder}
    return FinetuneMonitor(pipeline, **{**settings, **arguments}).start()


def brighten(pipeline) -> None:
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias += 0.1


@pytest.mark.slow
def test_the_three_lines_of_the_readme_in_a_loop_of_ones_own(pipeline, run_folder):
    monitor = FinetuneMonitor(
        pipeline=pipeline,
        grid=GRID,
        metrics=[Brightness()],
        sinks=[TensorBoardSink()],
        stopping=Patience("brightness", patience=2, min_delta=0.5),
        every=2,
        output_dir=run_folder,
    ).start()
    for step in range(1, 100):
        if step < 4:
            brighten(pipeline)
        if monitor.on_step_end(step):
            break
    summary = monitor.close()
    assert (step, summary.reason, summary.best_step) == (8, StopReason.PATIENCE, 6)
    assert "2 evaluations in a row did not beat" in summary.why
    run = read_run(run_folder)
    assert [evaluation.step for evaluation in run.evaluations] == [0, 2, 4, 6, 8]
    for evaluation in run.evaluations:
        assert len(evaluation.images) == 4
        assert all((run_folder / image.file).is_file() for image in evaluation.images)
    assert list((run_folder / "tensorboard").rglob("events*"))
    note = json.loads((run_folder / "best/finetune_monitor.json").read_text())
    assert note["step"] == 6


def test_scores_in_the_record_are_those_of_the_recorded_images(pipeline, run_folder):
    make(pipeline, run_folder).close()
    for image in read_run(run_folder).evaluations[0].images:
        seen = np.asarray(Image.open(run_folder / image.file)).mean()
        assert image.scores["brightness"] == pytest.approx(seen)


def test_each_image_is_encoded_as_soon_as_its_batch_is_rendered(pipeline, run_folder, monkeypatch):
    monitor = make(pipeline, run_folder)
    monitor._renderer.batches.size = 1
    happened = []
    begin, render = PngEncoder.begin, monitor._renderer._denoise
    monkeypatch.setattr(
        PngEncoder,
        "begin",
        lambda *given: happened.extend((given[1], cell.index) for cell in given[2]) or begin(*given),
    )
    monkeypatch.setattr(monitor._renderer, "_denoise", lambda *given: happened.append("render") or render(*given))
    monitor.evaluate(2)
    each = [what for index in range(len(GRID.cells)) for what in ("render", (2, index))]
    assert happened[: len(each)] == each
    for cell in monitor.close().evaluations[-1].images:
        assert Image.open(run_folder / cell.file).text["finetune_monitor.step"] == "2"


def test_a_metric_that_fails_is_missing_and_training_goes_on(pipeline, run_folder, caplog):
    class Broken(Brightness):
        name = "broken"

        def score(self, images, cells):
            raise ValueError("no such thing")

    monitor = make(pipeline, run_folder, metrics=[Broken(), Brightness()], stopping=Patience("broken", patience=2))
    stops = [monitor.on_step_end(step) for step in range(1, 5)]
    monitor.close()
    assert stops == [False] * 4
    evaluation = read_run(run_folder).evaluations[-1]
    assert (evaluation.scores["broken"].n, evaluation.scores["broken"].missing) == (0, 4)
    assert evaluation.scores["brightness"].n == 4
    assert evaluation.decision.reason == StopReason.NEVER_MEASURED
    assert caplog.text.count("no such thing") == 1


def test_a_render_that_fails_is_missing_and_the_model_is_given_back(pipeline, run_folder, caplog):
    monitor = make(pipeline, run_folder)
    pipeline.unet.train()
    forward = pipeline.unet.forward

    def broken(*arguments, **named):
        raise RuntimeError("device lost")

    pipeline.unet.forward = broken
    monitor.on_step_end(2)
    pipeline.unet.forward = forward
    monitor.on_step_end(4)
    monitor.close()
    assert pipeline.unet.training
    first, second, third = read_run(run_folder).evaluations
    assert (first.scores["brightness"].n, second.scores["brightness"].n, third.scores["brightness"].n) == (4, 0, 4)
    assert all(image.file is None for image in second.images)
    assert "device lost" in caplog.text


def test_black_images_are_named_and_not_scored(pipeline, run_folder, caplog):
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias.fill_(-100.0)
    make(pipeline, run_folder).close()
    assert read_run(run_folder).evaluations[0].scores["brightness"].n == 0
    assert "black" in caplog.text


@pytest.mark.slow
def test_a_sink_that_fails_is_off_and_the_others_go_on(pipeline, run_folder, caplog):
    class BrokenSink:
        name = "broken"
        written = 0

        def start(self, run):
            pass

        def write(self, evaluation, images):
            self.written += 1
            raise OSError("disk full")

        def close(self, summary):
            raise AssertionError("must not be called")

    broken = BrokenSink()
    monitor = make(pipeline, run_folder, sinks=[broken, TensorBoardSink()])
    monitor.on_step_end(2)
    monitor.close()
    assert broken.written == 1
    assert "disk full" in caplog.text
    assert len(read_run(run_folder).evaluations) == 2


def test_hooks_see_what_is_recorded_and_one_that_fails_is_off(pipeline, run_folder, caplog):
    seen, failed = [], []

    def seeing(evaluation, decision):
        shown = read_run(run_folder).evaluations[-1]
        seen.append((evaluation.step, shown.step, decision == shown.decision, shown.images == evaluation.images))
        return "ignored"

    def failing(evaluation, decision):
        failed.append(torch.rand(1))
        raise RuntimeError("no network")

    state = torch.get_rng_state()
    monitor = make(pipeline, run_folder, hooks=[failing, seeing], stopping=Patience("brightness", patience=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert [monitor.on_step_end(step) for step in (2, 4)] == [False, True]
    monitor.close()
    assert seen == [(0, 0, True, True), (2, 2, True, True), (4, 4, True, True)]
    assert len(failed) == 1
    assert (
        caplog.text.count("failing failed and is turned off for the rest of the run: RuntimeError('no network')") == 1
    )


def test_best_weights_are_those_of_the_best_step(pipeline, run_folder):
    monitor = make(pipeline, run_folder)
    brighten(pipeline)
    expected = pipeline.vae.decoder.conv_out.bias.clone()
    monitor.on_step_end(2)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias -= 0.05
    monitor.on_step_end(4)
    monitor.close()
    best = type(pipeline).from_pretrained(run_folder / "best")
    assert torch.equal(best.vae.decoder.conv_out.bias, expected)


def test_where_training_never_helps_the_best_is_the_base_model_and_nothing_is_exported(pipeline, run_folder):
    monitor = make(pipeline, run_folder)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias -= 0.5
    monitor.on_step_end(2)
    assert monitor.close().best_step == 0
    assert not (run_folder / "best").exists()


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_history_and_drops_what_came_after_the_checkpoint(pipeline, run_folder):
    monitor = make(pipeline, run_folder)
    for step in range(1, 7):
        monitor.on_step_end(step)
    monitor.close()
    monitor = make(pipeline, run_folder, resume_step=4)
    assert [evaluation.step for evaluation in monitor.evaluations] == [0, 2, 4]
    assert not monitor.on_step_end(4)
    monitor.on_step_end(6)
    monitor.close()
    assert [evaluation.step for evaluation in read_run(run_folder).evaluations] == [0, 2, 4, 6]


def test_a_sink_of_a_resumed_run_is_told_which_alarms_sounded_last(pipeline, run_folder):
    class Dark(Brightness):
        columns: ClassVar = {"brightness": ScoreColumn(alarm=1e3, says="it is dark")}

    class Told(TensorBoardSink):
        def start(self, run):
            starts.append(run.sounding)
            super().start(run)

    starts: list[tuple[str, ...]] = []
    monitor = make(pipeline, run_folder, metrics=[Dark()], sinks=[Told()])
    monitor.on_step_end(2)
    monitor.on_step_end(4)
    monitor.close()
    for step in (4, 0):
        make(pipeline, run_folder, metrics=[Dark()], sinks=[Told()], resume_step=step).close()
    assert starts == [(), ("brightness",), ()]


def test_best_weights_of_a_step_that_is_repeated_are_set_aside(pipeline, run_folder, caplog):
    monitor = make(pipeline, run_folder)
    monitor.on_step_end(2)
    brighten(pipeline)
    monitor.on_step_end(4)
    monitor.close()
    make(pipeline, run_folder, resume_step=2).close()
    assert not (run_folder / "best").exists()
    assert (run_folder / "best-step-000004").is_dir()
    assert "belongs to step 4" in caplog.text


def test_the_loss_that_a_loop_passes_is_recorded_and_a_resumed_run_drops_what_it_repeats(pipeline, run_folder):
    with make(pipeline, run_folder, every=100) as monitor:
        for step in range(1, 31):
            monitor.on_step_end(step, loss=0.01 * step, learning_rate=1e-4)
    assert [(row.step, round(row.loss, 6)) for row in read_training(run_folder)] == [
        (10, 0.055),
        (20, 0.155),
        (30, 0.255),
    ]
    with make(pipeline, run_folder, every=100, resume_step=20) as monitor:
        for step in range(21, 31):
            monitor.on_step_end(step, loss=1.0)
    assert [round(row.loss, 6) for row in read_training(run_folder)] == [0.055, 0.155, 1.0]


def test_a_loss_that_cannot_be_recorded_is_warned_about_once_and_training_goes_on(pipeline, run_folder, caplog):
    with make(pipeline, run_folder, every=100) as monitor:
        (run_folder / "training.jsonl").mkdir()
        for step in range(1, 41):
            assert not monitor.on_step_end(step, loss=0.1, learning_rate=1e-4)
    assert caplog.text.count("cannot record the loss of step 10") == 1
    assert read_run(run_folder).has_ended


def test_a_step_is_evaluated_once(pipeline, run_folder):
    monitor = make(pipeline, run_folder)
    assert monitor.evaluate(2) is monitor.evaluate(2)
    monitor.close()
    assert len(read_run(run_folder).evaluations) == 2


def test_a_record_that_cannot_be_closed_does_not_end_the_program(pipeline, run_folder, monkeypatch, caplog):
    monitor = make(pipeline, run_folder)

    def full(summary):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monitor.record, "end", full)
    monitor.close()
    assert "No space left" in caplog.text


def test_a_pipeline_that_encodes_prompts_otherwise_is_refused(pipeline, run_folder):
    class Other(type(pipeline)):
        def encode_prompt(self, prompt, prompt_2, device):
            pass

    with pytest.raises(ValueError, match="found Other, expected a text-to-image"):
        make(Other(**pipeline.components, requires_safety_checker=False), run_folder)


def test_patience_changed_on_resume_is_the_new_one(pipeline, run_folder):
    monitor = make(pipeline, run_folder, stopping=Patience("brightness", patience=1))
    assert monitor.on_step_end(2)
    monitor.close()
    monitor = make(pipeline, run_folder, stopping=Patience("brightness", patience=3), resume_step=2)
    assert not monitor.decision.stop
    monitor.close()


def test_a_guard_that_is_relaxed_on_resume_no_longer_rejects_steps(pipeline, run_folder):
    class Told(TensorBoardSink):
        def start(self, run):
            told.append(rejected_steps(run.evaluations))
            super().start(run)

    told: list[list[int]] = []
    strict, relaxed = Guard("scripted", level=0.45), Guard("scripted", level=0.1)
    trained(pipeline, run_folder, [0.5, 0.7, 0.4, 0.4], stopping=strict)
    assert rejected_steps(read_run(run_folder).evaluations) == [2, 3]
    ended = trained(pipeline, run_folder, [0.4], resume_step=3, start=3, stopping=relaxed, sinks=[Told()])
    assert told == [[]]
    assert not rejected_steps(read_run(run_folder).evaluations)
    assert not any("cannot be the best" in sentence for sentence in ended.verdict)
    trained(pipeline, run_folder, [], resume_step=3, start=3, stopping=strict)
    assert rejected_steps(read_run(run_folder).evaluations) == [2, 3]


def test_what_was_recorded_when_ctrl_c_came_stays_in_the_history(pipeline, run_folder):
    def pressed(evaluation, decision):
        if evaluation.step == 2:
            raise KeyboardInterrupt

    monitor = make(pipeline, run_folder, hooks=[pressed])
    with pytest.raises(KeyboardInterrupt):
        monitor.on_step_end(2)
    monitor.evaluate(2)
    monitor.on_step_end(4)
    monitor.close()
    recorded = [evaluation.step for evaluation in read_run(run_folder).evaluations]
    assert [evaluation.step for evaluation in monitor.evaluations] == recorded == [0, 2, 4]


def test_another_grid_on_resume_is_refused(pipeline, run_folder):
    make(pipeline, run_folder).close()
    with pytest.raises(UserError, match="grid"):
        make(pipeline, run_folder, grid=PromptGrid(["a dog"], [0], steps=2), resume_step=0)


def test_a_directory_with_a_run_is_refused(pipeline, run_folder):
    make(pipeline, run_folder).close()
    with pytest.raises(UserError, match="choose"):
        make(pipeline, run_folder)


def test_weights_put_in_place_are_the_ones_that_are_judged(pipeline, run_folder):
    from contextlib import contextmanager

    @contextmanager
    def darker():
        pipeline.vae.decoder.conv_out.bias.data -= 0.5
        yield
        pipeline.vae.decoder.conv_out.bias.data += 0.5

    plain = make(pipeline, run_folder / "plain")
    averaged = make(pipeline, run_folder / "averaged", live_weights=darker)
    means = [monitor.close().evaluations[0].scores["brightness"].mean for monitor in (plain, averaged)]
    assert means[1] < means[0] - 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"metrics": []}, "metrics"),
        ({"metrics": [Brightness(), Brightness()]}, "no duplicate names"),
        ({"every": 0}, "every"),
    ],
)
def test_a_monitor_that_cannot_work_is_refused(pipeline, run_folder, arguments, said):
    with pytest.raises(ValueError, match=said):
        make(pipeline, run_folder, **arguments)


def test_the_console_line_says_scores_interval_and_cost(pipeline, run_folder, capsys):
    monitor = make(pipeline, run_folder)
    monitor.on_step_end(2)
    monitor.close()
    out = capsys.readouterr().out
    assert "step 2: brightness " in out
    assert "% of the time since the last" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        (tiny.sdxl, "DPMSolverMultistepScheduler"),
        (tiny.sd3, "FlowMatchEulerDiscreteScheduler"),
        (tiny.flux, "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_loop_of_ones_own_with_other_pipelines(kind, sampler, run_folder):
    pipeline = kind()
    grid = PromptGrid(["a photo of sks person"], [0, 1], steps=2, guidance=3.0, size=(32, 32))
    monitor = make(pipeline, run_folder, grid=grid)
    brighten(pipeline)
    monitor.on_step_end(2)
    assert monitor.close().best_step == 2
    first, second = read_run(run_folder).evaluations
    assert second.scores["brightness"].mean > first.scores["brightness"].mean
    rows = [json.loads(row) for row in (run_folder / "images.jsonl").read_text().splitlines()]
    assert {row["sampler"] for row in rows} == {sampler}
    assert (run_folder / "best/model_index.json").is_file()


def test_a_budget_puts_evaluations_off_and_a_resumed_run_keeps_to_it(pipeline, run_folder, caplog):
    def train(monitor, steps):
        for step in steps:
            monitor.on_step_end(step)
        monitor.close()
        return [evaluation.step for evaluation in read_run(run_folder).evaluations]

    assert train(make(pipeline, run_folder, max_overhead=0.999999), range(1, 7)) == [0, 2, 4, 6]
    frugal = make(pipeline, run_folder, max_overhead=1e-9, resume_step=5)
    assert train(frugal, range(6, 13)) == [0, 2, 4]
    assert caplog.text.count("evaluation postponed to about step") == 1
    recorded = read_run(run_folder)
    assert recorded.run["max_overhead"] == 1e-9
    assert [evaluation.overhead is None for evaluation in recorded.evaluations] == [True, False, False]
    assert all(0 < evaluation.overhead <= 1 for evaluation in recorded.evaluations[1:])


def test_what_monitoring_will_cost_is_said_in_words(pipeline, run_folder, monkeypatch):
    def after_14_seconds(budget, step, evaluated, cost, warm=True, train_from=Budget.train_from):
        train_from(budget, step, evaluated, 14.0, warm)

    monkeypatch.setattr(Budget, "train_from", after_14_seconds)
    monitor = make(pipeline, run_folder, every=300, max_overhead=0.05)
    said = monitor.forecast(0.5)
    assert said.startswith(
        "evaluation: about 14.0 s or less, every 300 steps, 8.5% of the time; brightness: with 4 images "
    )
    assert "with 4 images this grid can detect a change of " in said
    assert "(estimated from one evaluation); with 16 images, " in said
    monitor.evaluate(300)  # the same images: how they move is not known yet
    assert monitor.forecast(1.0) == "evaluation: about 14.0 s, every 300 steps, 4.5% of the time"
    assert monitor.forecast(0.5) == (
        "evaluation: about 14.0 s, every 600 steps (not every 300: max_overhead), 4.5% of the time"
    )
    monitor.close()


@pytest.mark.slow
def test_a_grid_larger_than_memory_is_refused(pipeline, run_folder):
    grid = PromptGrid(["a"], range(400_000), size=(512, 512))
    with pytest.raises(UserError, match=r"400000 images of 512 x 512 pixels need about 1464.8 GiB"):
        make(pipeline, run_folder, grid=grid)


def test_a_step_before_the_last_one_evaluated_is_refused_and_not_taken_for_it(pipeline, run_folder):
    monitor = make(pipeline, run_folder)
    ten = monitor.evaluate(10)
    assert monitor.evaluate(10) is ten
    with pytest.raises(ValueError, match="found 5 after an evaluation at step 10"):
        monitor.evaluate(5)
    monitor.close()
    assert [evaluation.step for evaluation in read_run(run_folder).evaluations] == [0, 10]


def test_a_count_that_begins_anew_is_warned_about_once_and_training_goes_on(pipeline, run_folder, caplog):
    monitor = make(pipeline, run_folder)
    for step in (1, 2, 3, 4, 1, 2, 3):
        assert not monitor.on_step_end(step)
    monitor.close()
    assert [evaluation.step for evaluation in read_run(run_folder).evaluations] == [0, 2, 4]
    assert caplog.text.count("count steps across the entire training run") == 1


def test_the_other_processes_have_no_record(pipeline, run_folder, monkeypatch):
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    monitor = make(pipeline, run_folder)
    assert monitor.record is None
    assert not monitor.on_step_end(2)
    monitor.close()
    assert not run_folder.exists()


class AtFive:
    """A rule with a reason of its own."""

    metric = "brightness"

    def decide(self, watched) -> str | None:
        return "it is five o'clock" if len(watched.history) > 1 else None


def test_a_rule_of_the_users_own_ends_the_training_with_its_own_reason(pipeline, run_folder, capsys):
    monitor = make(pipeline, run_folder, stopping=AtFive(), sinks=[TensorBoardSink(), ReportPage()])
    assert monitor.on_step_end(2)
    assert monitor.close().reason == "it is five o'clock"
    assert "The run ended at step 2: it is five o'clock." in capsys.readouterr().out
    history = read_run(run_folder)
    assert (history.reason, history.why) == ("it is five o'clock", "it is five o'clock")
    assert history.evaluations[-1].decision.reason == "it is five o'clock"


def test_a_run_ends_at_its_last_step_and_not_at_its_last_evaluation(pipeline, run_folder, capsys):
    monitor = make(pipeline, run_folder)
    monitor.on_step_end(2)
    monitor.on_step_end(3)
    assert monitor.close(StopReason.INTERRUPTED).step == 3
    assert "The run ended at step 3: it was interrupted" in capsys.readouterr().out
    assert make(pipeline, run_folder, resume_step=3).close().step == 3


class Comparing(Brightness):
    """Compares images with each other, and gives fewer features or values than there are images."""

    name = "comparing"

    def __init__(self, features: int, values: int) -> None:
        self._features, self._values = features, values

    def score(self, images, cells):
        return {}

    def features(self, images, cells):
        return [np.zeros(2)] * self._features

    def compare(self, features, cells):
        return {self.name: np.ones(self._values)}


@pytest.mark.parametrize(("features", "values", "warnings"), [(4, 4, 0), (3, 4, 1), (4, 3, 1)])
def test_a_metric_that_compares_too_few_images_is_warned_about_and_ends_nothing(
    pipeline, run_folder, caplog, features, values, warnings
):
    make(pipeline, run_folder, metrics=[Brightness(), Comparing(features, values)]).close()
    assert caplog.text.count("metric comparing failed") == warnings
    assert read_run(run_folder).evaluations[0].scores["comparing"].n == (0 if values == 3 else 4)


class Careless:
    """A rule that fails, or returns what makes no sense."""

    metric = "brightness"

    def __init__(self, found=None) -> None:
        self._found = found

    def decide(self, watched):
        if self._found is None:
            raise IndexError("no third evaluation")
        return self._found


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Careless(), Careless(3), Careless(True)], ids=["fails", "a number", "a truth value"])
def test_a_rule_that_fails_is_warned_about_once_and_ends_nothing(pipeline, run_folder, caplog, rule):
    monitor = make(pipeline, run_folder, stopping=[rule, AtFive()])
    assert monitor.on_step_end(2)  # the next rule is asked all the same
    monitor.close()
    assert caplog.text.count("stopping rule Careless failed") == 1


def test_a_loss_that_is_not_finite_stops_where_a_rule_watches_it(pipeline, run_folder):
    monitor = make(pipeline, run_folder, stopping=Divergence("brightness"), every=10)
    assert not monitor.on_step_end(1, loss=0.5)
    assert monitor.on_step_end(2, loss=math.nan)
    summary = monitor.close()
    assert (summary.reason, summary.why) == (StopReason.DIVERGENCE, "the training has diverged: the loss is nan")


def test_rules_that_the_grid_cannot_serve_are_refused_before_anything_is_rendered(pipeline, run_folder):
    with pytest.raises(ValueError, match=r"stopping\.0\.prompts: found 7"):
        make(pipeline, run_folder, stopping=Plateau("brightness", prompts=[7]))
    assert not run_folder.exists()


def test_a_notice_in_the_models_folder_stands_beside_the_scores(tiny_model, tmp_path, run_folder, capsys):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "finetune_monitor.json").write_text('{"notice": "toy images"}')
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    make(pipeline, run_folder).close()
    assert read_run(run_folder).notices == ("toy images",)
    assert "toy images" in capsys.readouterr().out
    (folder / "finetune_monitor.json").write_text("{")
    with pytest.raises(UserError, match=r"finetune_monitor\.json: damaged"):
        make(pipeline, tmp_path / "other")
