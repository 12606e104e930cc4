"""A loop on Accelerate: the monitor takes the pipeline with whatever was prepared or compiled in it."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from finetune_monitor import FinetuneMonitor
from finetune_monitor.models.export import export_weights
from finetune_monitor.rendering.renderer import Renderer
from support.loops import GRID, Brightness, Denoiser, Latents, steps_of
from support.tiny import stable_diffusion


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def new_state():
    """Accelerate as in a new process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


WRAPPED = {
    "prepared": lambda part: Accelerator(cpu=True).prepare(part),
    "compiled": lambda part: torch.compile(part, backend="eager"),
    "distributed": DistributedDataParallel,
    "all": lambda part: torch.compile(DistributedDataParallel(part), backend="eager"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapped_pipeline_renders_and_exports_as_the_plain_one(wrap, tmp_path):
    plain, wrapped = stable_diffusion(), stable_diffusion()
    wrapped.unet, wrapped.text_encoder = wrap(wrapped.unet), wrap(wrapped.text_encoder)
    for ours, theirs in zip(*(Renderer(pipe, GRID).render(GRID.cells) for pipe in (wrapped, plain)), strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    export_weights(wrapped, tmp_path / "out", {})
    saved = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    assert saved.keys() == plain.unet.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"mixed_precision": "bf16"}, {"dynamo_backend": "eager"}], ids=str)
def test_three_lines_in_a_loop_with_accumulated_gradients(tmp_path, new_state, settings):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, **settings)
    pipe = stable_diffusion()
    optimizer = torch.optim.SGD(pipe.unet.parameters(), 1e-3)
    pipe.unet, optimizer, loader = accelerator.prepare(pipe.unet, optimizer, DataLoader(Latents()))
    training = Denoiser(pipe)
    monitor = FinetuneMonitor(pipe, GRID, [Brightness()], tmp_path / "run", every=2).start()
    step = 0
    for batch in loader:
        with accelerator.accumulate(pipe.unet):
            accelerator.backward(training(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
        step += accelerator.sync_gradients
        if accelerator.sync_gradients and monitor.on_step_end(step):
            break
    monitor.close()
    assert steps_of(monitor) == [0, 2, 4]
    assert len({image.scores["brightness"] for each in monitor.evaluations for image in each.images[:1]}) == 3
