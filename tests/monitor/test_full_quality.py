"""A fast run shows its best and its last step at full quality, too, and never mixes the two."""

import logging
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.grid import STEPS
from finetune_monitor.record.history import read_run
from finetune_monitor.record.kept_weights import LORA_FILE
from finetune_monitor.report.page import write_page
from support.scripted import Scripted, add_lora, mark

GRID = PromptGrid(["a photo of sks person"], images_per_prompt=2, quality="fast")
SCORES = [0.0, 0.5, 0.9, 0.6]
AT_FULL = [0.85, 0.55]


def train(pipeline, folder, grid=GRID, reason=None, scores=(*SCORES, *AT_FULL), metric=None, **options):
    """A run of one step an evaluation, whose best step is 2 and whose last is 3."""
    monitor = trained(pipeline, folder, grid, metric or Scripted(scores), **options)
    monitor.close(reason)
    return read_run(folder)


def trained(pipeline, folder, grid, metric, **options):
    """Its monitor before it is closed."""
    monitor = FinetuneMonitor(pipeline, grid, [metric], folder, every=1, **options).start()
    for step in range(1, len(SCORES)):
        mark(pipeline, step)
        monitor.on_step_end(step)
    return monitor


class Impatient(Scripted):
    """Ctrl-C once the scores have run out."""

    def score(self, images, cells):
        try:
            return super().score(images, cells)
        except StopIteration:
            raise KeyboardInterrupt from None


class Rising(Scripted):
    """Notes the beginning of each history that it is given."""

    def __init__(self, scores):
        super().__init__(scores)
        self.beginnings = set()

    def derive(self, history):
        self.beginnings.add(history[0].step)
        return {}


class Late(Scripted):
    """Has a second column, which it does not describe, only after the run's own evaluations."""

    def __init__(self, scores):
        super().__init__(scores)
        self.calls = 0

    def score(self, images, cells):
        self.calls += 1
        found = super().score(images, cells)
        return found | ({"late": np.ones(len(images))} if self.calls > len(SCORES) else {})


def pixels(folder, image):
    return np.asarray(Image.open(folder / image.file), dtype=int)


@pytest.mark.slow
def test_the_best_and_the_last_step_are_rendered_at_full_quality_from_their_own_weights(pipeline, run_folder):
    run = train(add_lora(pipeline), run_folder)
    assert [found.step for found in run.full_quality] == [run.best_step, 3] == [2, 3]
    assert [found.scores["scripted"].mean for found in run.full_quality] == AT_FULL
    mark(pipeline, 2)
    slow = FinetuneMonitor(
        pipeline, PromptGrid(GRID.prompts, images_per_prompt=2), [Scripted([0.0])], run_folder / "again"
    )
    expected = slow.evaluate(0)
    slow.close(StopReason.INTERRUPTED)
    for image, own in zip(run.full_quality[0].images, expected.images, strict=True):
        assert np.abs(pixels(run_folder, image) - pixels(run_folder / "again", own)).max() <= 1
    fast = run.at(2).images[0]
    assert np.abs(pixels(run_folder, run.full_quality[0].images[0]) - pixels(run_folder, fast)).max() > 1


@pytest.mark.slow
def test_the_curve_is_the_fast_one_alone(pipeline, run_folder):
    run = train(add_lora(pipeline), run_folder)
    assert [found.scores["scripted"].mean for found in run.evaluations] == SCORES
    assert run.grid.steps == STEPS["fast"]
    assert {Image.open(run_folder / i.file).text["finetune_monitor.steps"] for i in run.at(2).images} == {"8"}
    at_full = {Image.open(run_folder / i.file).text["finetune_monitor.steps"] for i in run.full_quality[0].images}
    assert at_full == {"25"}
    said = " ".join(run.run["verdict"]["sentences"])
    assert "At full quality (25 steps instead of 8), step 2 has scripted 0.850" in said
    card = (run_folder / "best/README.md").read_text()
    assert re.search(r"\| 2 \| 0\.850.* \| these weights at full quality: 25 steps, not 8 \|", card)


@pytest.mark.slow
def test_the_weights_being_trained_are_given_back(pipeline, run_folder):
    add_lora(pipeline)
    train(pipeline, run_folder)
    left = {float(part.detach().max()) for name, part in pipeline.unet.named_parameters() if "lora_B" in name}
    assert left == {3.0}


@pytest.mark.slow
def test_a_complete_pipeline_is_read_back_too(pipeline, run_folder):
    run = train(pipeline, run_folder)
    assert [found.step for found in run.full_quality] == [2, 3]
    first, last = (pixels(run_folder, found.images[0]) for found in run.full_quality)
    assert np.abs(first - last).max() > 1
    assert torch.equal(pipeline.vae.decoder.conv_out.bias, torch.full_like(pipeline.vae.decoder.conv_out.bias, 3))


@pytest.mark.slow
def test_what_was_frozen_in_the_end_is_read_back_too(pipeline, run_folder):
    monitor = trained(pipeline, run_folder, GRID, Scripted((*SCORES, *AT_FULL)))
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    monitor.close()
    best, last = (pixels(run_folder, found.images[0]) for found in read_run(run_folder).full_quality)
    assert np.abs(best - last).max() > 1


@pytest.mark.slow
def test_ctrl_c_ends_the_rendering_and_not_the_record(pipeline, run_folder):
    with pytest.raises(KeyboardInterrupt):
        train(add_lora(pipeline), run_folder, metric=Impatient(SCORES))
    run = read_run(run_folder)
    assert run.full_quality == ()
    assert run.run["ended"]["best_step"] == 2
    left = {float(part.detach().max()) for name, part in pipeline.unet.named_parameters() if "lora_B" in name}
    assert left == {3.0}


@pytest.mark.slow
def test_a_run_that_was_told_to_end_renders_nothing_more(pipeline, run_folder):
    assert train(add_lora(pipeline), run_folder, scores=SCORES, interrupted=lambda: True).full_quality == ()


@pytest.mark.slow
def test_scores_of_the_history_are_never_made_of_images_at_full_quality(pipeline, run_folder):
    metric = Rising((*SCORES, *AT_FULL))
    assert len(train(add_lora(pipeline), run_folder, metric=metric).full_quality) == 2
    assert metric.beginnings == {0}


@pytest.mark.slow
def test_a_column_that_only_images_at_full_quality_have_is_known(pipeline, run_folder):
    run = train(add_lora(pipeline), run_folder, metric=Late((*SCORES, *AT_FULL)))
    assert "late" in run.full_quality[0].scores
    write_page(run_folder / "page", [run_folder], None, 1)


@pytest.mark.slow
@pytest.mark.parametrize("reason", [StopReason.INTERRUPTED, StopReason.FAILED, StopReason.NOT_FINITE])
def test_a_run_without_a_result_renders_nothing_more(pipeline, run_folder, reason):
    assert train(add_lora(pipeline), run_folder, reason=reason, scores=SCORES).full_quality == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid", [PromptGrid(GRID.prompts, steps=1), PromptGrid(GRID.prompts, steps=30, quality="fast")]
)
def test_a_run_at_full_quality_renders_nothing_more(pipeline, run_folder, grid):
    assert train(add_lora(pipeline), run_folder, grid, scores=SCORES).full_quality == ()


@pytest.mark.slow
def test_a_resumed_run_drops_what_it_showed_of_its_end(pipeline, run_folder):
    train(add_lora(pipeline), run_folder)
    monitor = FinetuneMonitor(pipeline, GRID, [Scripted([0.5])], run_folder, every=1, resume_step=3)
    assert read_run(run_folder).full_quality == ()
    assert not list((run_folder / "images").glob("*-full"))
    monitor.close(StopReason.INTERRUPTED)


def test_weights_that_are_gone_are_a_warning(pipeline, run_folder, caplog):
    add_lora(pipeline)
    monitor = FinetuneMonitor(pipeline, GRID, [Scripted([*SCORES[:2], 0.7])], run_folder, every=1).start()
    mark(pipeline, 1)
    monitor.on_step_end(1)
    (run_folder / "weights/step-000001" / LORA_FILE).write_bytes(b"damaged")
    (run_folder / "best" / LORA_FILE).unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        monitor.close()
    assert read_run(run_folder).full_quality == ()
    assert "cannot load its weights" in caplog.text


@pytest.mark.slow
def test_weights_that_were_deleted_are_a_warning(pipeline, run_folder, caplog):
    monitor = trained(add_lora(pipeline), run_folder, GRID, Scripted(SCORES))
    for name in ("weights", "best"):
        shutil.rmtree(run_folder / name)
    with caplog.at_level(logging.WARNING):
        monitor.close()
    assert read_run(run_folder).full_quality == ()
    assert "cannot render step 2 at full quality: cannot load its weights: UserError" in caplog.text
