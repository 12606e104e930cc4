"""Check on a GPU what a CPU cannot show: precisions, kernels, compiling, waits, memory, and resuming there.

python benchmarks/gpu_checks.py
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from measure import ROOT, gpu, publish, table
from PIL import Image
from safetensors.torch import load_file

from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.record.kept_weights import LORA_FILE, step_folder
from finetune_monitor.record.training_log import read_training
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.training.compiling import missing_for
from finetune_monitor.training.config import load_config
from finetune_monitor.training.launcher import make_accelerator
from finetune_monitor.training.loop import Trainer
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.preflight import RunInputs
from finetune_monitor.training.run import make_trainer, run
from finetune_monitor.training.trainable import PRECISIONS, load_pipeline
from models import DEMO

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG, MODEL = ROOT / "configs/demo.yaml", DEMO / "stable-diffusion"

SHORT = ("train.prior_loss_weight=0", "train.batch_size=2", "data.random_crop=false", "monitor.stopping=[]")
SMALL_GRID = ("monitor.grid.images_per_prompt=2", "monitor.grid.steps=3", "monitor.sinks={}")
METRICS = ("monitor.metrics.recognized=null", "monitor.metrics.leakage=null", "monitor.metrics.diversity=null")

OVERFLOW = 2.0**60
"""A loss scale with which every gradient overflows in fp16."""

LEVELS = 2.0
"""How much images may differ on average, of 255 levels: kernels add in another order."""


class NotHereError(Exception):
    """This machine cannot run the check."""


def need_gpu() -> None:
    if DEVICE.type != "cuda":
        raise NotHereError("needs a GPU")


def trainer(folder: Path, *overrides: str) -> Trainer:
    """A trainer of the demo's model, without a monitor."""
    config = load_config(CONFIG, [f"output_dir={folder}", "monitor.enabled=false", *SHORT, *overrides])
    folder.mkdir(exist_ok=True)
    AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
    accelerator, _ = make_accelerator(config.train)
    pipeline = load_pipeline(MODEL, BaseModel(str(MODEL))).to(accelerator.device)
    photos = [
        TrainingPhoto(path, config.data.instance_prompt) for path in sorted(config.data.instance_images.iterdir())
    ]
    return make_trainer(config, accelerator, pipeline, RunInputs(MODEL, photos, [], None, None), [])


def trained(folder: Path, steps: int, *overrides: str) -> RunHistory:
    """A training with the monitor in it."""
    lengths = (f"train.max_steps={steps}", "train.checkpoint_every=2", "monitor.every=2")
    AcceleratorState._reset_state(reset_partial_state=True)
    status = run(load_config(CONFIG, [f"output_dir={folder}", *SHORT, *SMALL_GRID, *METRICS, *lengths, *overrides]))
    assert status == 0, f"the training ended with {status}"
    return read_run(folder)


def lora(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(step_folder(folder, step) / LORA_FILE)


def apart(ours: Sequence[Any], others: Sequence[Any]) -> float:
    """The mean difference of images in levels of 255."""
    pairs = zip(ours, others, strict=True)
    return float(np.mean([np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean() for a, b in pairs]))


def largest(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The largest difference of weights."""
    assert ours.keys() == others.keys()
    return max(float((ours[name].float() - others[name].float()).abs().max()) for name in ours)


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in of.trainable.parameters.items()}


def precision(name: str) -> Callable[[Path], str]:
    """A training in this precision: finite losses, images, scores, and weights that render the recorded images."""

    def check(folder: Path) -> str:
        if name == "fp16":
            need_gpu()
        history = trained(folder, 4, f"train.mixed_precision={name}")
        losses = [row.loss for row in read_training(folder)]
        assert losses
        assert np.isfinite(losses).all(), f"losses {losses}"
        last = history.evaluations[-1]
        recorded = [Image.open(folder / image.file).convert("RGB") for image in last.images if image.file]
        assert len(recorded) == len(last.images), f"{len(recorded)} of {len(last.images)} images"
        assert "face_similarity" in last.scores
        pipeline = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None).to(DEVICE)
        pipeline.load_lora_weights(step_folder(folder, last.step))
        renderer = Renderer(pipeline, history.grid, PRECISIONS[name])
        found = apart(recorded, renderer.render(renderer.grid.cells))
        assert found < LEVELS, f"diffusers renders the kept weights {found:.2f} levels apart"
        return (
            f"{len(losses)} losses, {len(recorded)} images; diffusers renders the kept weights {found:.2f} levels apart"
        )

    return check


def scaler(folder: Path) -> str:
    """An update whose gradients overflow in fp16 is skipped, the scale falls, and training goes on."""
    need_gpu()
    trains = trainer(folder, "train.mixed_precision=fp16")
    scale = trains.accelerator.scaler
    assert scale is not None
    trains.train_step(1)
    before, scale_before = weights(trains), scale.get_scale()
    scale.update(OVERFLOW)
    trains.train_step(2)
    assert largest(before, weights(trains)) == 0, "an overflowing update was applied"
    assert scale.get_scale() < OVERFLOW, "the scale did not fall"
    scale.update(scale_before)
    loss = float(trains.train_step(3))
    assert np.isfinite(loss)
    assert largest(before, weights(trains)) > 0, "training did not go on"
    return f"skipped at a scale of 2^60; the next update was applied, loss {loss:.3f}"


def fused(folder: Path) -> str:
    """AdamW's fused kernel gives the weights of the plain one."""
    sides = []
    for number, is_fused in enumerate((True, False)):
        trains = trainer(folder / str(number))
        for group in trains.optimizer.param_groups:
            assert DEVICE.type != "cuda" or group["fused"], "the optimizer is not fused"
            group["fused"], group["foreach"] = is_fused, False
        for step in (1, 2, 3):
            trains.train_step(step)
        sides.append(weights(trains))
    found = largest(*sides)
    assert found < 1e-5, f"weights {found:.1e} apart after 3 steps"
    return f"weights {found:.1e} apart after 3 steps"


def compiled(folder: Path) -> str:
    """The compiled UNet has the loss of the plain one."""
    need_gpu()
    if missing := missing_for(DEVICE):
        raise NotHereError("needs " + " and ".join(missing))
    plain, fast = trainer(folder / "plain"), trainer(folder / "fast", "train.compile=true")
    start = time.perf_counter()
    losses = [[float(each.train_step(step)) for step in (1, 2)] for each in (plain, fast)]
    found = float(np.abs(np.subtract(*losses)).max())
    assert found < 1e-3, f"losses {losses[0]} and {losses[1]}"
    return f"losses {found:.1e} apart; two steps of both took {time.perf_counter() - start:.0f} s with compiling"


def waits(folder: Path) -> str:
    """No training step makes the CPU wait for the GPU."""
    need_gpu()
    for name in ("no", "bf16", "fp16"):
        trains = trainer(folder / name, f"train.mixed_precision={name}")
        trains.train_step(1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in (2, 3):
                trains.train_step(step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "two steps each in fp32, bf16, and fp16"


def resumed(folder: Path) -> str:
    """A training that was interrupted and resumed ends with the weights of one that was not."""
    trained(folder / "straight", 4)
    trained(folder / "halves", 2)
    trained(folder / "halves", 4)
    found = largest(lora(folder / "straight", 4), lora(folder / "halves", 4))
    assert found < 1e-6, f"weights {found:.1e} apart"
    return f"weights {found:.1e} apart"


def on_both(folder: Path) -> str:
    """The GPU renders the images of the CPU."""
    need_gpu()
    grid = PromptGrid(["a photo of a person"], [0, 1], steps=5, size=(64, 64))
    sides = []
    for device in ("cpu", "cuda"):
        pipeline = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None).to(device)
        renderer = Renderer(pipeline, grid)
        sides.append(renderer.render(renderer.grid.cells))
    found = apart(*sides)
    assert found < LEVELS, f"{found:.2f} levels apart"
    return f"{found:.2f} levels apart"


def halved(folder: Path) -> str:
    """When memory runs out, smaller batches give the same images."""
    need_gpu()
    grid = PromptGrid(["a photo of a person"], list(range(8)), steps=2, size=(512, 512))
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None).to(DEVICE)
    peaks, images = [], []
    for count in (1, 8):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        renderer = Renderer(pipeline, grid)
        renderer.batches.size = count
        images = renderer.render(renderer.grid.cells)
        peaks.append(torch.cuda.max_memory_reserved())
    torch.cuda.empty_cache()
    limit = sum(peaks) / 2
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(DEVICE).total_memory)
    try:
        renderer = Renderer(pipeline, grid)
        renderer.batches.size = 8
        found = apart(images, renderer.render(renderer.grid.cells))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert renderer.batches.size < 8, "memory did not run out"
    assert found < LEVELS, f"{found:.2f} levels apart"
    fitting = f"{limit / 2**30:.2f} GiB are too few for 8 images at once, but not for {renderer.batches.size}"
    return f"{fitting}; {found:.2f} levels apart"


CHECKS: dict[str, Callable[[Path], str]] = {
    "training in fp32": precision("no"),
    "training in bf16": precision("bf16"),
    "training in fp16": precision("fp16"),
    "GradScaler": scaler,
    "fused AdamW": fused,
    "compiled UNet": compiled,
    "no waits": waits,
    "resumed": resumed,
    "GPU and CPU": on_both,
    "out of memory": halved,
}


def outcome(check: Callable[[Path], str]) -> tuple[str, str]:
    """Whether a check passed, and what it found."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return "passed", check(Path(folder))
        except NotHereError as error:
            return "not run", str(error)
        except Exception as error:  # the others are still to be run
            return "FAILED", f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def main() -> int:
    found = {}
    for name, check in CHECKS.items():
        start = time.perf_counter()
        found[name] = outcome(check)
        print(f"{name}: {': '.join(found[name])} ({time.perf_counter() - start:.1f} s)", file=sys.stderr, flush=True)
    rows = [(name, *each) for name, each in found.items()]
    where = f"on {gpu()}" if gpu() else "on the CPU, so most of them were not run"
    publish("Checks", "demo", [f"Small trainings {where}.", table(("check", "result", "found"), rows)])
    return int(any(result == "FAILED" for result, _ in found.values()))


if __name__ == "__main__":
    sys.exit(main())
