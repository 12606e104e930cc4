"""Rendering from live weights: same cell, same picture; nothing borrowed is kept."""

import random

import numpy as np
import pytest
import torch

from conftest import tiny_pipeline
from finetune_monitor import PromptGrid, sampling
from finetune_monitor.borrowing import borrowed
from finetune_monitor.sampling import OutOfMemoryError, Renderer, is_black, to_pictures

GRID = PromptGrid(["a photo of sks person", "a cat"], [0, 1, 2], steps=3, guidance=4.0)


def pixels(pictures) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def render(renderer: Renderer, cells=GRID.cells) -> np.ndarray:
    with borrowed(renderer.pipeline):
        return pixels(renderer.render(cells))


def test_a_cell_is_the_same_picture_in_any_batch_and_order(pipeline):
    whole = render(Renderer(pipeline, GRID))
    for batch in (1, 2, 5):
        renderer = Renderer(pipeline, GRID)
        renderer.batch = batch
        backwards = render(renderer, GRID.cells[::-1])[::-1]
        assert np.abs(whole - backwards).max() <= 1


def test_the_picture_is_the_one_that_plain_diffusers_makes(pipeline):
    ours = render(Renderer(pipeline, GRID))[1]
    plain = tiny_pipeline()
    plain.scheduler = sampling.own_scheduler(plain.scheduler, GRID.sampler)
    cell = GRID.cells[1]
    theirs = plain(
        cell.prompt,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(cell.seed),
    ).images[0]
    assert np.abs(ours - pixels([theirs])[0]).max() <= 1


def test_changed_weights_change_the_picture_without_a_new_renderer(pipeline):
    renderer = Renderer(pipeline, GRID)
    before = render(renderer)
    with torch.no_grad():
        pipeline.unet.conv_out.bias += 0.5
    assert np.abs(render(renderer) - before).max() > 1


@pytest.mark.parametrize("trained", [False, True])
def test_prompts_are_encoded_anew_only_where_the_text_encoder_is_trained(pipeline, trained):
    pipeline.text_encoder.requires_grad_(trained)
    renderer = Renderer(pipeline, GRID)
    before = render(renderer)
    with torch.no_grad():
        pipeline.text_encoder.get_input_embeddings().weight += torch.randn(49408, 16)
    assert (np.abs(render(renderer) - before).max() > 1) == trained


def test_everything_borrowed_is_given_back_also_after_an_error(pipeline):
    pipeline.unet.train()
    pipeline.unet.mid_block.eval()
    modes = [part.training for part in pipeline.unet.modules()]
    scheduler, config = pipeline.scheduler, dict(pipeline.scheduler.config)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(RuntimeError, match="half-way"), borrowed(pipeline):
        assert not any(part.training for part in pipeline.unet.modules())
        assert not torch.is_grad_enabled()
        random.random(), np.random.rand(), torch.rand(1)
        Renderer(pipeline, GRID).render(GRID.cells)
        raise RuntimeError("half-way")
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert [part.training for part in pipeline.unet.modules()] == modes
    assert pipeline.scheduler is scheduler
    assert dict(scheduler.config) == config
    assert torch.is_grad_enabled()


def test_dropout_is_off_while_rendering():
    pipeline = tiny_pipeline(dropout=0.5)
    pipeline.unet.train()
    renderer = Renderer(pipeline, GRID)
    assert np.array_equal(render(renderer), render(renderer))


def test_out_of_memory_halves_the_batch_and_is_remembered(pipeline, monkeypatch, caplog):
    renderer = Renderer(pipeline, GRID)
    tried, sample = [], renderer._sample

    def small_memory(cells):
        tried.append(len(cells))
        if len(cells) > 2:
            raise torch.cuda.OutOfMemoryError("stub")
        return sample(cells)

    monkeypatch.setattr(renderer, "_sample", small_memory)
    assert len(render(renderer)) == 6
    assert len(render(renderer)) == 6
    assert tried == [6, 3, 1, 1, 1, 1, 1, 1] + [1] * 6
    assert "out of memory" in caplog.text


def test_one_cell_that_does_not_fit_is_an_error(pipeline, monkeypatch):
    def no_memory(cells):
        raise torch.cuda.OutOfMemoryError("stub")

    renderer = Renderer(pipeline, GRID)
    monkeypatch.setattr(renderer, "_sample", no_memory)
    with pytest.raises(OutOfMemoryError, match="single cell"):
        render(renderer)


@pytest.mark.parametrize("sampler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler"])
def test_any_scheduler_of_diffusers_by_name(pipeline, sampler):
    grid = PromptGrid(["a"], [0], steps=3, sampler=sampler)
    renderer = Renderer(pipeline, grid)
    assert np.array_equal(render(renderer, grid.cells), render(renderer, grid.cells))


def test_the_solver_knows_the_models_prediction_type():
    renderer = Renderer(tiny_pipeline(prediction_type="v_prediction"), GRID)
    assert renderer.pipeline.scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("name", ["NoSuchScheduler", "UNet2DConditionModel", "StableDiffusionPipeline"])
def test_a_sampler_that_does_not_exist_is_refused(pipeline, name):
    with pytest.raises(ValueError, match=name):
        Renderer(pipeline, PromptGrid(["a"], [0], sampler=name))


def test_the_safety_checker_is_left_out(pipeline):
    pipeline.register_modules(safety_checker=None)
    assert Renderer(pipeline, GRID).pipeline.safety_checker is None


def test_values_that_are_not_finite_give_no_picture():
    images = torch.rand(3, 3, 8, 8)
    images[1, 0, 0, 0] = float("nan")
    assert [picture is None for picture in to_pictures(images)] == [False, True, False]


def test_black_is_told_from_dark():
    black, dark = to_pictures(torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.05)]))
    assert is_black(black)
    assert not is_black(dark)
