"""What is borrowed in the middle of a training is given back as it was, whatever happened to it."""

import random
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import nn

from finetune_monitor import PromptGrid
from finetune_monitor.rendering.isolation import isolated, modules_kept
from finetune_monitor.rendering.renderer import Renderer
from support import tiny

GRID = PromptGrid(["a photo of sks person", "a cat"], [0, 1], steps=2, size=(32, 32))


def training(kind=tiny.stable_diffusion):
    """A pipeline in the middle of a training: LoRA layers, some modules in other modes, checkpointing on."""
    pipeline = kind()
    pipeline.vae.requires_grad_(False)
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    denoiser.requires_grad_(False)
    denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], lora_dropout=0.5))
    denoiser.enable_gradient_checkpointing()
    denoiser.train()
    next(denoiser.children()).eval()
    denoiser.to(memory_format=torch.channels_last)
    return pipeline, denoiser


def state(pipeline):
    """All that can be seen of the pipeline's modules: attributes, tensors with their types, places and formats."""
    seen = {}
    for name, module in pipeline.components.items():
        for path, part in module.named_modules() if isinstance(module, nn.Module) else []:
            plain = {
                key: repr(value)
                for key, value in vars(part).items()
                if isinstance(value, (bool, int, str, list, dict)) and not key.startswith(("_parameters", "_modules"))
            }
            seen[name, path] = (plain, [id(child) for child in part.children()])
        for path, tensor in module.state_dict(keep_vars=True).items() if isinstance(module, nn.Module) else []:
            described = (tensor.requires_grad, tensor.dtype, tensor.device, tensor.stride(), tensor.data_ptr())
            seen[name, path, "tensor"] = (described, tensor.detach().double().numpy().tobytes())
    return seen


def convert(pipeline, denoiser):
    denoiser.to(torch.float16)
    pipeline.vae.to(torch.bfloat16)


def reformat(pipeline, denoiser):
    denoiser.to(memory_format=torch.contiguous_format)


def unadapt(pipeline, denoiser):
    denoiser.disable_adapters()
    warnings.simplefilter("ignore")  # PEFT warns of a second adapter
    denoiser.add_adapter(LoraConfig(r=1, target_modules=["to_v"]), adapter_name="second")
    denoiser.set_adapter("second")


def forget(pipeline, denoiser):
    denoiser.disable_gradient_checkpointing()
    denoiser.requires_grad_(True)
    denoiser.train()
    pipeline.vae.enable_slicing()
    pipeline.vae.enable_tiling()


def hook(pipeline, denoiser):
    denoiser.register_forward_pre_hook(lambda module, inputs: None)
    denoiser.conv_in = nn.Identity() if hasattr(denoiser, "conv_in") else None
    denoiser.remembered = torch.ones(3)


@pytest.mark.slow
@pytest.mark.parametrize("meddle", [convert, reformat, unadapt, forget, hook])
@pytest.mark.parametrize("kind", [tiny.stable_diffusion, tiny.flux])
@pytest.mark.parametrize("fails", [False, True])
def test_modules_are_given_back_whatever_was_done_to_them(meddle, kind, fails):
    pipeline, denoiser = training(kind)
    before = state(pipeline)
    with pytest.raises(RuntimeError, match="half-way") if fails else nullcontext(), isolated(pipeline):
        meddle(pipeline, denoiser)
        assert state(pipeline) != before
        if fails:
            raise RuntimeError("half-way")
    assert state(pipeline) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tiny.stable_diffusion, tiny.sdxl, tiny.sd3, tiny.flux])
def test_rendering_leaves_no_trace_and_training_goes_on(kind):
    pipeline, _ = training(kind)
    before, scheduler = state(pipeline), dict(pipeline.scheduler.config)
    renderer = Renderer(pipeline, GRID)
    with isolated(renderer.pipeline):
        renderer.render(GRID.cells)
    assert state(pipeline) == before
    assert dict(pipeline.scheduler.config) == scheduler
    assert pipeline.scheduler is not renderer.pipeline.scheduler


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_random_generators_modes_and_gradients_are_given_back_after_an_error(pipeline):
    pipeline.unet.train()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(RuntimeError, match="half-way"), isolated(pipeline):
        assert not any(part.training for part in pipeline.unet.modules())
        assert not torch.is_grad_enabled()
        draws()
        raise RuntimeError("half-way")
    assert draws() == expected
    assert torch.is_grad_enabled()
    assert pipeline.unet.training


def test_an_evaluation_within_autocast_neither_uses_it_nor_leaves_weights_in_its_cache():
    """Casts that are made without gradients and kept would leave the next step without gradients."""
    pipeline = tiny.stable_diffusion()
    layer = pipeline.unet.time_embedding.linear_1
    x = torch.ones(1, layer.in_features)
    with torch.autocast("cpu", torch.bfloat16):
        with isolated(pipeline):
            assert layer(x).dtype == torch.float32
            with torch.autocast("cpu", torch.bfloat16):
                layer(x)
        assert torch.is_autocast_enabled("cpu")
        layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_what_a_module_remembers_of_a_rendering_does_not_break_its_training():
    tables = []

    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            if not tables:
                tables.append(torch.arange(3.0))
            return x * self.weight * tables[0]

    module = Remembers()
    pipeline = type("Pipeline", (), {"components": {"unet": module}})
    with isolated(pipeline):
        module(torch.ones(3))
    module(torch.ones(3)).sum().backward()
    assert module.weight.grad.tolist() == [0, 1, 2]


def test_gradients_that_are_being_accumulated_are_given_back_with_their_types():
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    gradient, values = layer.weight.grad, layer.weight.grad.clone()
    with modules_kept([layer]):
        layer.to(torch.float16)
        layer.zero_grad()
    assert layer.weight.grad is gradient
    assert torch.equal(gradient, values)
