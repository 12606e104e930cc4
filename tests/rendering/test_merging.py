"""While images render, LoRA layers are part of the weights, and afterwards nothing shows it."""

import math

import pytest
import torch
from peft import LoraConfig

from finetune_monitor import PromptGrid
from finetune_monitor.models.adapters import adapted_layers
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.merging import merged
from finetune_monitor.rendering.renderer import Renderer

GRID = PromptGrid(["a photo of sks person"], [0, 1], steps=2, size=(32, 32))
LAYERS = ["to_q", "to_k", "conv1"]


def adapted(pipeline, **options):
    """The pipeline's UNet with LoRA layers that change its output."""
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=LAYERS, init_lora_weights=False, **options))
    return pipeline.unet.eval()


def predicted(unet):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator).to(unet.dtype)
    text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator).to(unet.dtype)
    with torch.no_grad():
        return unet(latents, 5, text).sample


def contents(unet):
    return {name: (id(p), p.data_ptr(), p.detach().float().numpy().tobytes()) for name, p in unet.named_parameters()}


def merged_layers(unet):
    return [name for name, layer in adapted_layers(unet) if layer.merged]


def test_merged_layers_predict_the_same_and_are_given_back_bit_for_bit(pipeline):
    plain = predicted(pipeline.unet)
    unet = adapted(pipeline)
    expected, before = predicted(unet), contents(unet)
    with merged(unet):
        assert len(merged_layers(unet)) == len(list(adapted_layers(unet))) > 0
        found = predicted(unet)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-3)
    assert merged_layers(unet) == []
    assert contents(unet) == before
    assert torch.equal(predicted(unet), expected)


def compiled(unet):
    unet._compiled_call_impl = lambda *_: None


@pytest.mark.parametrize(
    "change", [lambda unet: unet.to(torch.bfloat16), lambda unet: unet.disable_adapters(), compiled]
)
def test_layers_stay_apart_where_merging_would_change_the_result_or_compile_again(pipeline, change):
    unet = adapted(pipeline)
    change(unet)
    with merged(unet):
        assert merged_layers(unet) == []


def test_dora_layers_stay_apart(pipeline):
    unet = adapted(pipeline, use_dora=True)
    with merged(unet):
        assert merged_layers(unet) == []


def test_what_the_user_has_merged_stays_merged(pipeline):
    unet = adapted(pipeline)
    for _, layer in adapted_layers(unet):
        layer.merge()
    before = contents(unet)
    with merged(unet):
        pass
    assert contents(unet) == before
    assert len(merged_layers(unet)) == len(list(adapted_layers(unet)))


@pytest.mark.parametrize(("autocast", "used"), [(None, False), (torch.bfloat16, True)])
def test_rendering_computes_no_lora_layers_in_fp32(pipeline, autocast, used):
    unet, calls = adapted(pipeline), []
    for _, layer in adapted_layers(unet):
        layer.lora_A["default"].register_forward_hook(lambda *_: calls.append(1))
    renderer = Renderer(pipeline, GRID, autocast)
    with isolated(renderer.pipeline):
        assert all(renderer.render(GRID.cells))
    assert bool(calls) == used


def test_a_lora_that_is_not_finite_gives_no_image_as_ever(pipeline):
    unet = adapted(pipeline)
    _, layer = next(adapted_layers(unet))
    layer.lora_B["default"].weight.data.fill_(math.nan)
    renderer = Renderer(pipeline, GRID)
    with isolated(renderer.pipeline):
        assert renderer.render(GRID.cells) == [None, None]
