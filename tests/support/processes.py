"""Launched by tests/monitor/test_two_processes.py on every process: each scenario writes what it saw as JSON."""

import itertools
import json
import math
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.nn.parallel import DistributedDataParallel

from finetune_monitor import FinetuneMonitor, Patience, PromptGrid
from finetune_monitor.base import distributed
from finetune_monitor.monitor.budget import Budget
from finetune_monitor.record import live
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.rendering import renderer
from finetune_monitor.training import loop
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support import tiny

GRID = PromptGrid(["a photo of sks person", "a cat", "a dog"], [0, 1], steps=2, guidance=3.0, size=(32, 32))


class Brightness:
    """Brightness of an image, how far it is from the others', and the model's greatest bias.

    On the process `fails` its score raises, on `slow` it takes a second.
    """

    name, higher_is_better, bounds = "brightness", True, (0.0, 255.0)
    columns = {  # noqa: RUF012
        name: ScoreColumn(),
        "apart": ScoreColumn(None, role="side"),
        "bias": ScoreColumn(None, role="side", over="run"),
    }

    def __init__(self, fails=None, slow=None):
        self.fails, self.slow = fails, slow

    def score(self, images, cells):
        if distributed.rank() == self.fails:
            raise RuntimeError("this process cannot measure")
        if distributed.rank() == self.slow:
            time.sleep(1)
        return {self.name: np.array([np.asarray(image).mean() for image in images], dtype=np.float64)}

    def features(self, images, cells):
        return [np.array([np.asarray(image).mean()], dtype=np.float64) for image in images]

    def compare(self, features, cells):
        values = np.array([math.nan if each is None else each[0] for each in features])
        return {"apart": np.abs(values - np.nanmean(values))}

    def measure(self, pipeline, size):
        return {"bias": np.array([pipeline.unet.conv_out.bias.max().item() + distributed.rank()])}


def watch(folder, metric, grid=GRID, pipeline=None, **settings):
    """Three steps watched; what this process knows in the end."""
    pipeline = pipeline or tiny.stable_diffusion()
    stopping = [Patience("brightness", patience=1)] if len(grid.cells) > 1 else []
    monitor = FinetuneMonitor(pipeline, grid, [metric], folder, (), stopping, 1, **settings).start()
    stops = [monitor.on_step_end(step) for step in (1, 2, 3)]
    monitor.close()
    steps = [evaluation.step for evaluation in monitor.evaluations]
    latest = {image.cell.id: image.scores["brightness"] for image in monitor.evaluations[0].images}
    return {"stops": stops, "steps": steps, "best": monitor.decision.best_step, "scores": latest}


def broken(pipeline):
    """On the second process the denoiser raises."""
    if distributed.rank() == 1:
        pipeline.unet.register_forward_pre_hook(lambda module, inputs: 1 / 0)
    return pipeline


def wrapped(folder):
    """The scores of a loop of one's own over a wrapped denoiser, and what was learned with the monitor and without."""
    found = {}
    for name in ("alone", "watched"):
        pipeline = tiny.stable_diffusion()
        pipeline.unet = DistributedDataParallel(pipeline.unet)
        monitor = (
            FinetuneMonitor(pipeline, GRID, [Brightness()], folder, every=1).start() if name == "watched" else None
        )
        optimizer = torch.optim.SGD(pipeline.unet.parameters(), 0.1)
        for step in (1, 2):
            latents = torch.full((1, 4, 16, 16), 1.0 + distributed.rank())
            pipeline.unet(latents, torch.tensor(10), torch.ones(1, 4, 16)).sample.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if monitor is not None:
                monitor.on_step_end(step)
        found[name] = [parameter.double().sum().item() for parameter in pipeline.unet.parameters()]
    monitor.close()
    return {**found, "scores": [evaluation.scores["brightness"].mean for evaluation in monitor.evaluations]}


def steered(folder):
    """Forty steps of a run that is evaluated, held, and stopped on request; the second process comes late to each."""
    monitor = FinetuneMonitor(tiny.stable_diffusion(), GRID, [Brightness()], folder, every=100).start()
    found = {}
    for step in range(1, 41):
        if distributed.rank() == 0 and step in (3, 13, 23):
            live.request(folder, {3: live.EVALUATE, 13: live.PAUSE, 23: live.STOP}[step])
        if distributed.rank() == 0 and step == 15:
            threading.Timer(1.0, live.withdraw, (folder, live.PAUSE)).start()
        time.sleep(0.01 * distributed.rank())
        start = time.monotonic()
        if monitor.on_step_end(step):
            found["stopped"] = step
            break
        if time.monotonic() - start > 0.5 and step > 10:
            found["held"] = step
    found |= {"why": monitor.close().why, "steps": [evaluation.step for evaluation in monitor.evaluations]}
    return found


class OwnClock(Budget):
    """Processes whose clocks disagree about the budget."""

    def is_affordable(self, step):
        return step == 1 if distributed.rank() == 0 else step == 2


def disagree(folder):
    from finetune_monitor.monitor import callback as module

    module.Budget = OwnClock
    try:
        return watch(folder, Brightness(), max_overhead=0.5)
    finally:
        module.Budget = Budget


TRAININGS = {
    "lora": ["train.lora_dropout=0.3", "train.text_encoder=true", "train.gradient_accumulation=2"],
    "full": ["train.method=full"],
}
WATCHED = {
    "alone": "monitor.enabled=false",
    "watched": "monitor.every=1",
    "other_grid": "monitor.grid.seeds=[7]",
    "broken": "monitor.every=2",
}
PAIRS = [pair for pair in itertools.product(TRAININGS, WATCHED) if pair != ("full", "other_grid")]
"""Whatever is rendered, nothing of it depends on what is trained."""


def train(folder, config):
    """Each training watched, not watched, and watched otherwise; the losses that this process saw."""
    end, dist.destroy_process_group = dist.destroy_process_group, lambda *group: None  # Accelerate's at each run's end
    losses = {}
    for training, watched in PAIRS:
        run_folder = folder / f"{training}-{watched}"
        options = [f"output_dir={run_folder}", "monitor.sinks={}", "monitor.stopping=[]"]
        options += [*TRAININGS[training], WATCHED[watched]]
        with breaking() if watched == "broken" else nullcontext():
            losses[run_folder.name] = noted(load_config(config, options))
    dist.destroy_process_group = end
    return losses


@contextmanager
def breaking():
    """On the second process decoding raises, after the model was meddled with."""
    whole = renderer.decode

    def decode(pipeline, latents):
        if distributed.rank() == 1:
            pipeline.unet.train().to(torch.bfloat16)
            raise RuntimeError("half-way")
        return whole(pipeline, latents)

    renderer.decode = decode
    try:
        yield
    finally:
        renderer.decode = whole


def noted(config):
    losses, step = [], loop.Trainer.train_step

    def noting(self, number):
        losses.append(step(self, number).item())
        return torch.tensor(losses[-1])

    loop.Trainer.train_step = noting
    try:
        run(config)
    finally:
        loop.Trainer.train_step = step
    return losses


def main():
    folder, config = Path(sys.argv[1]), Path(sys.argv[2])
    PartialState(cpu=True)
    found = {
        "same": watch(folder / "same", Brightness()),
        "metric_fails": watch(folder / "metric_fails", Brightness(fails=1)),
        "render_fails": watch(folder / "render_fails", Brightness(), pipeline=broken(tiny.stable_diffusion())),
        "one_cell": watch(folder / "one_cell", Brightness(), PromptGrid(["a"], [0], steps=2, size=(32, 32))),
        "slow": watch(folder / "slow", Brightness(slow=1)),
        "fast": watch(folder / "fast", Brightness(), replace(GRID, quality="fast", steps=None)),
        "clocks": disagree(folder / "clocks"),
        "wrapped": wrapped(folder / "wrapped"),
        "steered": steered(folder / "steered"),
    }
    losses = train(folder, config)
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps({"found": found, "losses": losses}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
