"""Denoising loss on held-out photos: the same noise each time, so that a change is the model's alone."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from finetune_monitor import FinetuneMonitor, PromptGrid
from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import OfModel, RunContext, describe
from finetune_monitor.metrics.validation_loss import DRAWS, NAME, RISE, ValidationLoss
from finetune_monitor.monitor.rules.guard import Guard
from finetune_monitor.record.alarms import alarms
from finetune_monitor.record.evaluation import Evaluation, summarize_samples
from finetune_monitor.record.history import read_run
from finetune_monitor.rendering.pipelines import own_pipeline
from support.tiny import flux, stable_diffusion

PHOTO = Image.fromarray(data.astronaut()).crop((130, 0, 330, 160))
PHOTOS = [PHOTO, PHOTO.crop((20, 10, 180, 150))]
GRID = PromptGrid(["a photo of sks person"], images_per_prompt=2, steps=2)
SIZE = (32, 32)


def metric(photos=PHOTOS, alarm: float = 0.05) -> ValidationLoss:
    return ValidationLoss(photos, "a photo of sks person", alarm)


def measured(pipeline, of: ValidationLoss | None = None) -> np.ndarray:
    with torch.no_grad():
        return (of or metric()).measure(own_pipeline(pipeline, "DPMSolverMultistepScheduler"), SIZE)[NAME]


def evaluation(step: int, samples: np.ndarray) -> Evaluation:
    found = {NAME: samples.tolist()}
    return Evaluation(step, None, 0.0, summarize_samples(found, ValidationLoss.columns), samples=found)


@pytest.mark.slow
def test_the_same_model_has_the_same_loss_whatever_was_drawn_before(pipeline):
    first = metric()
    before = measured(pipeline, first)
    torch.manual_seed(99)
    np.random.default_rng().random()
    assert before.shape == (DRAWS,)
    assert np.array_equal(before, measured(pipeline, first))
    assert np.array_equal(before, measured(pipeline))
    pipeline.unet.conv_out.weight.data.mul_(2)
    assert not np.array_equal(before, measured(pipeline))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_it_is_the_mean_squared_error_of_what_the_model_was_trained_to_predict(monkeypatch, kind):
    pipeline = stable_diffusion(prediction_type=kind)
    latents = pipeline.vae.encode(torch.zeros(1, 3, *SIZE)).latent_dist.mean * 0
    monkeypatch.setattr(pipeline.vae, "encode", lambda _: SimpleNamespace(latent_dist=SimpleNamespace(mean=latents)))
    monkeypatch.setattr(pipeline.unet, "forward", lambda x, t, **_: SimpleNamespace(sample=torch.zeros_like(x)))
    alphas = pipeline.scheduler.alphas_cumprod
    expected = {"epsilon": 1.0, "v_prediction": alphas.mean().item()}[kind]  # of latents 0 the velocity is √ᾱ noise
    assert measured(pipeline).mean() == pytest.approx(expected, rel=0.1)


def test_levels_are_spread_over_all_and_every_photo_is_used(monkeypatch, pipeline):
    seen = []
    forward = pipeline.unet.forward
    monkeypatch.setattr(
        pipeline.unet, "forward", lambda x, t, **given: seen.extend(t.tolist()) or forward(x, t, **given)
    )
    measured(pipeline)
    assert len(seen) == 16 * DRAWS
    for draw in np.reshape(seen, (DRAWS, 16)):
        assert (np.abs(np.sort(draw) - 62.5 * (np.arange(16) + 0.5)) <= 32.5).all()


def test_more_photos_than_passes_are_all_noised():
    pipeline, photos = stable_diffusion(), [PHOTO.resize((32 + i, 32)) for i in range(20)]
    assert np.isfinite(measured(pipeline, metric(photos))).all()


def test_the_loss_needs_a_unet():
    with pytest.raises(ValueError, match="found FluxPipeline, expected a pipeline with a UNet"):
        metric().measure(flux(), SIZE)


def test_the_rise_is_paired_so_that_little_of_it_is_sure():
    noise = np.array([0.0, 0.3, -0.2, -0.1])
    fall, low, rise = (evaluation(step, mean + noise) for step, mean in ((0, 1.0), (100, 0.8), (200, 0.88)))
    assert metric().derive([fall]) == {}
    assert metric().derive([fall, low])[RISE].mean == 0
    found = metric().derive([fall, low, rise])[RISE]
    assert found.mean == pytest.approx(0.1)
    assert 0.05 < found.low < found.high < 0.15
    apart = rise.scores[NAME]
    assert apart.high - apart.low > 0.5  # what other noise would give


@pytest.mark.parametrize(("last", "sounds"), [(0.81, ()), (0.88, (RISE,))])
def test_the_alarm_sounds_where_unseen_photos_are_denoised_worse(last, sounds):
    noise = np.array([0.0, 0.3, -0.2, -0.1])
    history = [evaluation(0, 1.0 + noise), evaluation(100, 0.8 + noise), evaluation(200, last + noise)]
    rise = metric().derive(history)
    last_one = Evaluation(200, None, 0.0, {**history[-1].scores, **rise}, samples=history[-1].samples)
    assert alarms([*history[:-1], last_one], describe(metric()).columns) == sounds


def test_values_that_are_not_finite_are_missing(pipeline, run_folder):
    pipeline.unet.conv_out.bias.data[0] = float("inf")
    with FinetuneMonitorOf(pipeline, run_folder) as monitor:
        assert np.isnan(monitor.evaluations[0].scores[NAME].mean)
    assert np.isnan(read_run(run_folder).evaluations[0].samples[NAME]).all()


class FinetuneMonitorOf:
    """A monitor of this metric alone, closed in the end."""

    def __init__(self, pipeline, folder: Path, stopping=()) -> None:
        settings = {"stopping": stopping, "every": 1, "on_failure": "warn"}
        self.monitor = FinetuneMonitor(pipeline, GRID, [metric()], folder, **settings).start()

    def __enter__(self) -> FinetuneMonitor:
        return self.monitor

    def __exit__(self, *_: object) -> None:
        self.monitor.close()


def test_a_run_records_it_and_a_guard_pairs_the_draws(pipeline, run_folder):
    assert isinstance(metric(), OfModel)
    with FinetuneMonitorOf(pipeline, run_folder, Guard(NAME, fall=0.0)) as monitor:
        pipeline.unet.conv_out.weight.data.mul_(1.5)
        assert monitor.on_step_end(1)
    history = read_run(run_folder)
    assert [len(each.samples[NAME]) for each in history.evaluations] == [DRAWS, DRAWS]
    assert history.evaluations[1].scores[RISE].low > 0
    assert history.evaluations[1].scores[NAME].n == DRAWS
    assert history.columns[NAME].over == "run"


def test_a_run_without_held_out_photos_goes_on_without_it(caplog):
    with caplog.at_level(logging.WARNING):
        assert ValidationLoss.for_run(ValidationLoss.Options(), RunContext([Path("a.png")], [], "cpu")) is None
    assert "not measured because no photo is held out; use at least eight photos" in caplog.text


def test_bad_photos_and_levels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png"):
        metric([tmp_path / "gone.png"])
    with pytest.raises(ValueError, match="alarm: found 0, expected a share above 0"):
        ValidationLoss.Options(alarm=0)


def test_a_metric_that_gives_no_numbers_ends_no_training(pipeline, run_folder, monkeypatch, caplog):
    monkeypatch.setattr(ValidationLoss, "measure", lambda *_: {NAME: ["none", "of", "these"]})
    with caplog.at_level(logging.WARNING), FinetuneMonitorOf(pipeline, run_folder) as monitor:
        assert NAME not in monitor.evaluations[0].scores
    assert "metric validation_loss failed" in caplog.text
