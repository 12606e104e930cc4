"""Ways to render a grid for less: fewer steps, other schedulers and timesteps, guidance on an interval, reuse, bf16."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers.schedulers import AysSchedules
from jaxtyping import Float
from torch import Tensor, nn

from finetune_monitor.models.pipeline import Pipeline
from finetune_monitor.record.grid import DEFAULT_SAMPLER, PromptGrid
from finetune_monitor.rendering.renderer import Renderer

UNIPC = "UniPCMultistepScheduler"

INTERVAL = (0.28, 5.42)
"""Noise levels with guidance, as Kynkäänniemi et al. 2024 (arXiv 2404.07724) found for SDXL."""

AYS = tuple(AysSchedules["StableDiffusionTimesteps"])
"""Ten timesteps for Stable Diffusion 1.5 (Sabour et al. 2024, arXiv 2404.14507), as diffusers publishes them."""


@dataclass(frozen=True)
class Setting:
    """How a grid is rendered.

    timesteps: instead of the scheduler's own.
    interval: noise levels with guidance; None for all.
    deep_every: how often the deep blocks of the UNet are computed; in between, their last features are reused.
    """

    name: str
    steps: int
    sampler: str = DEFAULT_SAMPLER
    karras: bool = False
    timesteps: tuple[int, ...] | None = None
    interval: tuple[float, float] | None = None
    deep_every: int = 1
    autocast: torch.dtype | None = None


REFERENCE = Setting("50 steps (reference)", 50)

EVERYWHERE = (
    *(Setting(f"{steps} steps", steps) for steps in (25, 20, 16, 12, 10, 8)),
    Setting("6 steps, UniPC", 6, UNIPC),
)
"""The settings that are measured in every training; one of them becomes `fast`. DPM-Solver++ with guidance at every
step, in fp32, unless the name says otherwise."""

CANDIDATES = (
    *EVERYWHERE,
    *(Setting(f"{steps} steps", steps) for steps in (6, 5)),
    Setting("8 steps, guidance on an interval", 8, interval=INTERVAL),
    Setting("10 steps, deep features reused once", 10, deep_every=2),
)
"""The settings that are measured in the first trainings."""

HALF_THE_IMAGES = {
    f"{each.name.removesuffix(' (reference)')}, half the images": each
    for each in (REFERENCE, *EVERYWHERE)
    if each.steps in (50, 8)
}
"""Settings of which only half the images are scored; rendering them takes no additional time."""

OTHERS = (
    *(Setting(f"{steps} steps, Karras", steps, karras=True) for steps in (8, 6)),
    *(Setting(f"{steps} steps, UniPC", steps, UNIPC) for steps in (8, 5)),
    Setting("10 steps, AYS", 10, timesteps=AYS),
    Setting(
        "8 steps, AYS interpolated", 8, timesteps=tuple(map(round, np.interp(np.linspace(0, 9, 8), range(10), AYS)))
    ),
    Setting("10 steps, guidance on an interval", 10, interval=INTERVAL),
    Setting("8 steps, bf16", 8, autocast=torch.bfloat16),
)
"""Settings that are measured in fewer trainings, because they cost more than a candidate that is as good."""


@contextmanager
def renderer(pipeline: Pipeline, grid: PromptGrid, setting: Setting) -> Iterator[Renderer]:
    """A renderer of the grid with this setting; the pipeline's modules are as before on exit."""
    made = Renderer(
        pipeline,
        replace(grid, steps=setting.steps, sampler=setting.sampler, karras=setting.karras),
        setting.autocast,
    )
    scheduler, unet = made.pipeline.scheduler, made.pipeline.components["unet"]
    with ExitStack() as changed:
        if setting.timesteps is not None:
            use_timesteps(scheduler, list(setting.timesteps))
        if setting.deep_every > 1:
            changed.enter_context(deep_features_reused(unet, setting.deep_every))
        if setting.interval is not None:
            changed.enter_context(guidance_between(unet, noise_levels(scheduler), *setting.interval))
        yield made


def use_timesteps(scheduler: Any, timesteps: list[int]) -> None:
    """Let a scheduler use these timesteps, whatever it is asked for."""
    own = scheduler.set_timesteps
    scheduler.set_timesteps = lambda steps, device=None: own(device=device, timesteps=timesteps)


def noise_levels(scheduler: Any) -> Float[Tensor, " timesteps"]:
    """The noise level sigma of every timestep of training, in units of the signal."""
    kept: Tensor = scheduler.alphas_cumprod
    return ((1 - kept) / kept).sqrt()


@contextmanager
def guidance_between(unet: nn.Module, sigmas: Float[Tensor, " timesteps"], low: float, high: float) -> Iterator[None]:
    """Outside of (low, high], run a UNet on the prompts alone, and return the same for the negative prompts."""
    own = unet.forward

    def forward(sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **others: Any) -> Any:
        if low < sigmas[int(timestep)] <= high:
            return own(sample, timestep, encoder_hidden_states=encoder_hidden_states, **others)
        [found] = own(sample.chunk(2)[1], timestep, encoder_hidden_states=encoder_hidden_states.chunk(2)[1], **others)
        return (torch.cat([found, found]),)

    with replaced(unet, forward):
        yield


@contextmanager
def deep_features_reused(unet: Any, every: int) -> Iterator[None]:
    """Compute all but the first and the last block of a UNet at every so many calls only (Ma et al. 2023, DeepCache).

    The UNet must be called in the order of sampling, one batch at a time.
    """
    calls = -1
    own = unet.forward

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return own(*given, **named)

    def remembered(block: nn.Module) -> Callable[..., Any]:
        run, found = block.forward, None

        def forward(*given: Any, **named: Any) -> Any:
            nonlocal found
            if calls % every == 0:
                found = run(*given, **named)
            return found

        return forward

    with ExitStack() as changed:
        changed.enter_context(replaced(unet, counted))
        for block in (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]):
            changed.enter_context(replaced(block, remembered(block)))
        yield


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward pass, and its own back on exit."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
