"""Rendering from live weights: same cell, same image; nothing borrowed is kept."""

from dataclasses import replace
from functools import partial, wraps

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, FluxPipeline, StableDiffusionImg2ImgPipeline
from peft import LoraConfig

from finetune_monitor import PromptGrid
from finetune_monitor.rendering import schedulers
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.pipelines import decode
from finetune_monitor.rendering.renderer import Renderer, is_black, to_images
from support import needs, tiny
from support.tiny import stable_diffusion as tiny_pipeline

GRID = PromptGrid(["a photo of sks person", "a cat"], [0, 1, 2], steps=3, guidance=4.0, size=(32, 32))


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


def render(renderer: Renderer, cells=GRID.cells) -> np.ndarray:
    with isolated(renderer.pipeline):
        return pixels(renderer.render(cells))


PIPELINES = {
    "sd1": tiny.stable_diffusion,
    "sd2": partial(tiny.stable_diffusion, prediction_type="v_prediction"),
    "sdxl": tiny.sdxl,
    "sd3": tiny.sd3,
    "flux": tiny.flux,
}


@pytest.fixture(params=PIPELINES)
def make_pipeline(request):
    """Makes the same pipeline each time."""
    return PIPELINES[request.param]


@pytest.mark.slow
def test_a_cell_is_the_same_image_in_any_batch_and_order(make_pipeline):
    whole = render(Renderer(make_pipeline(), GRID))
    for batch in (1, 2, 5):
        renderer = Renderer(make_pipeline(), GRID)
        renderer.batches.size = batch
        backwards = render(renderer, GRID.cells[::-1])[::-1]
        assert np.abs(whole - backwards).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("negative", ["", "blurred"])
def test_the_image_is_the_one_that_plain_diffusers_makes(make_pipeline, negative):
    plain = make_pipeline()
    if negative and isinstance(plain, FluxPipeline):
        with pytest.raises(ValueError, match="negative_prompt"):
            Renderer(plain, replace(GRID, negative_prompt=negative))
        return
    renderer = Renderer(make_pipeline(), replace(GRID, negative_prompt=negative))
    ours, cell = render(renderer, renderer.grid.cells)[1], GRID.cells[1]
    plain.scheduler = schedulers.own_scheduler(plain.scheduler, renderer.grid.sampler)
    theirs = plain(
        cell.prompt,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(cell.seed),
        height=32,
        width=32,
        **({"negative_prompt": negative} if negative else {}),
    ).images[0]
    assert np.abs(ours - pixels([theirs])[0]).max() <= 1


def test_settings_of_the_pipeline_itself_are_kept():
    kept = Renderer(tiny.sdxl(force_zeros_for_empty_prompt=False), GRID).pipeline.config
    assert not kept.force_zeros_for_empty_prompt
    assert Renderer(tiny.sdxl(), GRID).pipeline.config.force_zeros_for_empty_prompt


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_float16_images_are_decoded_without_overflow_where_the_pipeline_says_so(kind):
    pipeline = PIPELINES[kind]()
    pipeline.vae.to(torch.float16)
    decoded_in = []
    pipeline.vae.decoder.register_forward_pre_hook(lambda module, inputs: decoded_in.append(inputs[0].dtype))
    renderer = Renderer(pipeline, GRID)
    render(renderer, GRID.cells[:1])
    assert decoded_in == [torch.float32 if kind == "sdxl" else torch.float16]
    assert pipeline.vae.dtype == torch.float16


def test_changed_weights_change_the_image_without_a_new_renderer(pipeline):
    renderer = Renderer(pipeline, GRID)
    before = render(renderer)
    with torch.no_grad():
        pipeline.unet.conv_out.bias += 0.5
    assert np.abs(render(renderer) - before).max() > 1


def test_dropout_is_off_while_rendering():
    pipeline = tiny_pipeline(dropout=0.5)
    pipeline.unet.train()
    renderer = Renderer(pipeline, GRID)
    assert np.array_equal(render(renderer), render(renderer))


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_is_remembered(pipeline, monkeypatch, caplog):
    renderer = Renderer(pipeline, GRID)
    tried, call = [], type(pipeline).__call__

    @wraps(call)
    def small_memory(self, **arguments):
        tried.append(len(arguments["generator"]))
        if tried[-1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return call(self, **arguments)

    monkeypatch.setattr(type(pipeline), "__call__", small_memory)
    assert len(render(renderer)) == 6
    assert len(render(renderer)) == 6
    assert tried == [6, 3, 1, 1, 1, 1, 1, 1] + [1] * 6
    assert "out of memory with 6 cells" in caplog.text


@pytest.mark.slow
def test_images_too_large_to_decode_whole_are_decoded_in_tiles(pipeline, monkeypatch, caplog):
    renderer = Renderer(pipeline, replace(GRID, size=(64, 64)))
    whole = render(renderer)

    def small_memory(own, latents):
        if not own.vae.use_tiling:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
        return decode(own, latents)

    monkeypatch.setattr("finetune_monitor.rendering.renderer.decode", small_memory)
    tiled = render(renderer)
    assert np.abs(whole - tiled).mean() < 8
    assert not pipeline.vae.use_tiling


@pytest.mark.parametrize("sampler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler"])
def test_any_scheduler_of_diffusers_by_name(pipeline, sampler):
    grid = PromptGrid(["a"], [0], steps=3, sampler=sampler)
    renderer = Renderer(pipeline, grid)
    assert np.array_equal(render(renderer, grid.cells), render(renderer, grid.cells))


def test_the_scheduler_knows_the_models_prediction_type():
    renderer = Renderer(tiny_pipeline(prediction_type="v_prediction"), GRID)
    assert renderer.pipeline.scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("name", ["NoSuchScheduler", "UNet2DConditionModel", "StableDiffusionPipeline"])
def test_a_sampler_that_does_not_exist_is_refused(pipeline, name):
    with pytest.raises(ValueError, match=name):
        Renderer(pipeline, PromptGrid(["a"], [0], sampler=name))


def test_the_safety_checker_is_left_out(pipeline):
    pipeline.safety_checker = torch.nn.Identity()
    assert pipeline.components["safety_checker"] is not None
    assert Renderer(pipeline, GRID).pipeline.safety_checker is None


def test_values_that_are_not_finite_give_no_image():
    images = torch.rand(3, 3, 8, 8)
    images[1, 0, 0, 0] = float("nan")
    assert [image is None for image in to_images(images)] == [False, True, False]


def test_black_is_told_from_dark():
    black, dark = to_images(torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.05)]))
    assert is_black(black)
    assert not is_black(dark)


@pytest.mark.parametrize(
    ("kind", "sampler", "used"),
    [
        ("sd1", None, "DPMSolverMultistepScheduler"),
        ("sd3", None, "FlowMatchEulerDiscreteScheduler"),
        pytest.param("flux", "DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler", marks=needs.flux_samplers),
    ],
)
def test_the_sampler_suits_the_model(kind, sampler, used):
    renderer = Renderer(PIPELINES[kind](), replace(GRID, sampler=sampler))
    assert renderer.grid.sampler == used
    assert type(renderer.pipeline.scheduler).__name__ == used
    assert len(np.unique(render(renderer, GRID.cells[:1]))) > 2


def test_a_sampler_that_does_not_suit_the_model_is_refused(pipeline):
    with pytest.raises(ValueError, match=r"use_flow_sigmas.*flow matching"):
        Renderer(tiny.sd3(), replace(GRID, sampler="DDIMScheduler"))
    with pytest.raises(ValueError, match="not trained with flow matching"):
        Renderer(pipeline, replace(GRID, sampler="FlowMatchEulerDiscreteScheduler"))


def test_karras_spacing_changes_the_noise_levels_or_is_refused(pipeline):
    plain, karras = (Renderer(pipeline, replace(GRID, karras=karras, steps=8)) for karras in (False, True))
    assert karras.pipeline.scheduler.config.use_karras_sigmas
    assert not np.array_equal(render(plain), render(karras))
    with pytest.raises(ValueError, match=r"DDIMScheduler.*karras"):
        Renderer(pipeline, replace(GRID, karras=True, sampler="DDIMScheduler"))


def test_pipelines_that_are_not_known_or_have_no_vae_are_refused(pipeline):
    unknown = DDPMPipeline(pipeline.unet, DDPMScheduler())
    with pytest.raises(ValueError, match=r"found DDPMPipeline.*Flux"):
        Renderer(unknown, GRID)
    from_images = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    with pytest.raises(ValueError, match="found StableDiffusionImg2ImgPipeline"):
        Renderer(from_images, GRID)
    pipeline.vae = None
    with pytest.raises(ValueError, match=r"pipeline\.vae: found None"):
        Renderer(pipeline, GRID)


@pytest.mark.slow
def test_the_adapter_of_a_text_encoder_counts_from_one_rendering_to_the_next():
    """A loop that judges LoRA files exchanges adapters that nothing trains."""
    pipeline, adapted = tiny_pipeline(), with_text_adapter(tiny_pipeline())
    renderer = Renderer(pipeline, GRID)
    before = render(renderer)
    with_text_adapter(pipeline)
    assert np.array_equal(render(renderer), render(Renderer(adapted, GRID)))
    assert not np.array_equal(render(renderer), before)
    pipeline.unload_lora_weights()
    assert np.array_equal(render(renderer), before)


def with_text_adapter(pipeline):
    torch.manual_seed(1)
    layers = ["q_proj", "k_proj", "v_proj", "out_proj"]
    pipeline.text_encoder.add_adapter(LoraConfig(r=4, lora_alpha=400, init_lora_weights=False, target_modules=layers))
    pipeline.text_encoder.requires_grad_(False)
    return pipeline
