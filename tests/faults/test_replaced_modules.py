"""A loop puts other modules into its pipeline: images, scores, and kept weights are of those it has now."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from finetune_monitor import FinetuneMonitor
from support import tiny
from support.loops import Brightness
from support.scripted import GRID

pytestmark = pytest.mark.slow


def scores(monitor: FinetuneMonitor) -> list[float]:
    return [round(evaluation.scores["brightness"].mean, 4) for evaluation in monitor.evaluations]


def scores_of(seed: int, folder) -> float:
    """The score of an untouched model."""
    pipeline = tiny.stable_diffusion()
    pipeline.unet = tiny.stable_diffusion(seed=seed).unet
    with FinetuneMonitor(pipeline, GRID, [Brightness()], folder) as monitor:
        return scores(monitor)[0]


def test_a_module_that_was_replaced_is_rendered_and_kept(run_folder, tmp_path):
    pipeline = tiny.stable_diffusion()
    with FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, every=1) as monitor:
        pipeline.unet = tiny.stable_diffusion(seed=9).unet
        monitor.on_step_end(1)
    assert scores(monitor) == [scores_of(0, tmp_path / "first"), scores_of(9, tmp_path / "second")]
    kept = load_file(run_folder / "weights/step-000001/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[name], part) for name, part in pipeline.unet.state_dict().items())


def test_an_average_may_be_a_module_of_its_own(run_folder, tmp_path):
    pipeline, averaged = tiny.stable_diffusion(), tiny.stable_diffusion(seed=9).unet

    @contextmanager
    def swapped():
        trained, pipeline.unet = pipeline.unet, averaged
        try:
            yield
        finally:
            pipeline.unet = trained

    with FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, every=1, live_weights=swapped) as monitor:
        averaged.load_state_dict(tiny.stable_diffusion(seed=5).unet.state_dict())
        monitor.on_step_end(1)
    assert scores(monitor) == [scores_of(9, tmp_path / "first"), scores_of(5, tmp_path / "second")]
    kept = load_file(run_folder / "weights/step-000001/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[name], part) for name, part in averaged.state_dict().items())
