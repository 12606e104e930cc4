"""A step of the training: nothing waits for the device, attention and memory layout are the fast ones."""

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.utils._python_dispatch import TorchDispatchMode

from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.training.config import load_config
from finetune_monitor.training.launcher import make_accelerator
from finetune_monitor.training.loop import Trainer
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.preflight import RunInputs
from finetune_monitor.training.run import make_trainer
from finetune_monitor.training.trainable import load_pipeline
from support import needs


class Waits(TorchDispatchMode):
    """Counts what would make a CPU wait for a GPU: reading a number, and results whose size depends on values."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def make(write_config, photos, tiny_model):
    def go(*overrides: str) -> Trainer:
        config = load_config(write_config(), ["monitor.enabled=false", *overrides])
        config.output_dir.mkdir(exist_ok=True)
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        accelerator, _ = make_accelerator(config.train)
        pipeline = load_pipeline(tiny_model, BaseModel(str(tiny_model))).to(accelerator.device)
        found = [TrainingPhoto(path, config.data.instance_prompt) for path in sorted(photos.iterdir())]
        inputs = RunInputs(tiny_model, found, [], None, None)
        return make_trainer(config, accelerator, pipeline, inputs, [])

    return go


STEPS = {
    "lora": [],
    "crop": ["data.random_crop=true", "data.random_flip=true"],
    "full": ["train.method=full", "train.text_encoder=true", "train.ema_decay=0.9"],
    "snr": ["train.snr_gamma=5", "train.gradient_accumulation=2", "train.lr_schedule=cosine"],
    "bf16": ["train.mixed_precision=bf16"],
    "uncached": ["train.cache_latents=never", "data.workers=0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", STEPS)
def test_no_step_waits_for_the_device(make, variant):
    trainer = make(*STEPS[variant])
    trainer.train_step(1)  # the first one may: it moves tables to the device and opens files
    with Waits() as waits:
        for step in (2, 3):
            trainer.train_step(step)
    assert waits.found == []
    trainer.close()


def test_a_step_that_waits_is_noticed():
    with Waits() as waits:
        torch.ones(1).item()
        bool(torch.ones(1) > 0)
    assert len(waits.found) == 2


@needs.gpu  # CUDA itself says when it waits
@pytest.mark.parametrize("variant", [*STEPS, "fp16"])
def test_no_step_waits_for_a_gpu(make, variant):
    trainer = make(*STEPS.get(variant, ["train.mixed_precision=fp16"]))
    trainer.train_step(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.close()


def test_attention_is_torchs_fused_one(tiny_model):
    pipeline = load_pipeline(tiny_model, BaseModel(str(tiny_model)))
    assert {type(p) for p in pipeline.unet.attn_processors.values()} == {AttnProcessor2_0}
    assert pipeline.text_encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_convolutions_lie_in_channels_last(tiny_model, part):
    convolutions = [p for p in getattr(load_pipeline(tiny_model, BaseModel("x")), part).parameters() if p.ndim == 4]
    assert convolutions
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)


@pytest.mark.slow
def test_a_compiled_unet_keeps_the_names_of_its_parameters(make):
    plain, compiled = make(), make("train.compile=true")
    assert list(plain.trainable.parameters) == list(compiled.trainable.parameters)
    assert compiled.trainable.models["unet"]._compiled_call_impl is not None
