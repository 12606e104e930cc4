"""Time rendering a grid during training, compared with a new pipeline and one image per call.

python benchmarks/evaluation.py --size demo
python benchmarks/evaluation.py --size sd15
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from measure import SECONDS, alternate, arguments, comparison, gpu, publish, seconds
from PIL.Image import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.rendering.renderer import Renderer
from models import Scale, live_pipeline, scale

PROMPTS = ("a photo of sks person", "a black and white photo of sks person", "sks person smiling", "an oil painting")
SEEDS = (0, 1, 2, 3)
GUIDANCE = 7.5
REDUCED_STEPS = 8

PEAK_TFLOPS = {"H100 80GB HBM3": 989, "H200": 989, "A100": 312}
"""Dense bf16 by device name, from NVIDIA's data sheets (for H100 and H200 they state it with sparsity, which is twice
this).
"""


class Usual:
    """The approach of diffusers' example scripts: a pipeline from the folder with the live UNet, one image per call."""

    def __init__(self, live: Any, chosen: Scale, grid: PromptGrid, autocast: Callable[[], AbstractContextManager]):
        self.live, self.chosen, self.grid, self.autocast = live, chosen, grid, autocast
        self.images: list[Image] = []
        self.building: list[float] = []

    def __call__(self) -> None:
        start = time.perf_counter()
        pipeline = usual_pipeline(self.chosen, self.live.device, unet=self.live.unet)
        self.building.append(time.perf_counter() - start)
        with self.autocast():
            self.images = [usual_image(pipeline, self.grid, cell.prompt, cell.seed) for cell in self.grid.cells]


def usual_pipeline(chosen: Scale, device: torch.device, **components: Any) -> Any:
    dtype = torch.bfloat16 if chosen.precision == "bf16" else torch.float32
    pipeline = StableDiffusionPipeline.from_pretrained(
        chosen.folder, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False, **components
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def usual_image(pipeline: Any, grid: PromptGrid, prompt: str, seed: int) -> Image:
    height, width = grid.size or (None, None)
    return pipeline(
        prompt,
        num_inference_steps=grid.steps,
        guidance_scale=grid.guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
        height=height,
        width=width,
    ).images[0]


class Ours:
    """The monitor's approach: one renderer for the entire run, batches of cells, all state restored."""

    def __init__(self, live: Any, grid: PromptGrid, autocast: torch.dtype | None) -> None:
        self.live, self.grid = live, grid
        self.renderer = Renderer(live, grid, autocast)
        self.images: list[Image | None] = []

    def __call__(self) -> None:
        with isolated(self.live):
            self.images = self.renderer.render(self.grid.cells)


def image_flops(chosen: Scale, device: torch.device, grid: PromptGrid) -> int:
    """Floating-point operations per image, for the model without LoRA layers; additions count too."""
    pipeline = usual_pipeline(chosen, device)
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # otherwise CPU attention is not counted
        usual_image(pipeline, grid, grid.prompts[0], 0)
    return counter.get_total_flops()


def rate(flops: float, found: float) -> str:
    """Operations per second, and their share of the GPU's peak."""
    name = gpu() or ""
    peak = next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    share = (
        f", {flops / found / peak / 1e10:.1f}% of the {peak} that {name} reaches at its peak in bf16" if peak else ""
    )
    return f"{flops / found / 1e12:.3f} TFLOP/s{share}"


def difference(ours: Sequence[Image | None], usual: Sequence[Image]) -> str:
    """The difference between the two sides' images, in levels of 255."""
    pairs = zip(ours, usual, strict=True)
    levels = [np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)) for a, b in pairs if a is not None]
    missing = f", {len(usual) - len(levels)} missing" if len(levels) < len(usual) else ""
    return f"{np.mean(levels):.3f} of 255 levels on average and {np.max(levels):.0f} at most{missing}"


def notes(chosen: Scale, grid: PromptGrid, usual: Usual, ours: Ours, values: dict[str, list[float]]) -> list[str]:
    flops = image_flops(chosen, usual.live.device, grid) * len(grid.cells)
    found = {name: rate(flops, median(seconds_)) for name, seconds_ in values.items()}
    reduced = (
        f" Reduced for the CPU: {chosen.pixels} px instead of 512 and {grid.steps} steps." if chosen.reduced else ""
    )
    return [
        f"- {len(grid.cells)} cells at {chosen.pixels} px, {grid.steps} steps of DPM-Solver++, guidance "
        f"{grid.guidance}, precision {chosen.precision}, live UNet with LoRA layers in train mode.{reduced}",
        "- Each method runs one evaluation before the first round.",
        f"- Of this time, diffusers' scripts spend {median(usual.building):.2f} s on building the pipeline.",
        f"- The images of the two methods differ by {difference(ours.images, usual.images)}.",
        f"- {flops / len(grid.cells) / 1e12:.3f} TFLOP per image: " + "; ".join(f"{n}: {r}" for n, r in found.items()),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, help="of the scheduler; 20, reduced to 8 for sd15 on a CPU")
    options = parser.parse_args()
    chosen, device = scale(options.size), "cuda" if gpu() else "cpu"
    steps = options.steps or (REDUCED_STEPS if chosen.reduced else 20)
    grid = PromptGrid(PROMPTS, SEEDS, steps=steps, guidance=GUIDANCE, size=(chosen.pixels, chosen.pixels))
    dtype = torch.bfloat16 if chosen.precision == "bf16" else None
    # a live model for each side, so that neither affects the other
    ours = Ours(live_pipeline(chosen, device), grid, dtype)
    usual = Usual(
        live_pipeline(chosen, device), chosen, grid, lambda: torch.autocast(device, dtype) if dtype else nullcontext()
    )
    usual()
    ours()
    values = alternate({"as diffusers' scripts do": seconds(usual), "finetune_monitor": seconds(ours)}, options.rounds)
    table = comparison(values, SECONDS, "one evaluation")
    publish("Rendering a grid", options.size, [table, "\n".join(notes(chosen, grid, usual, ours, values))])


if __name__ == "__main__":
    main()
