"""Watching changes nothing: the same losses and the same weights, bit for bit, however a training is watched."""

from collections.abc import Iterator

import pytest
import torch
import torch._inductor.config as inductor
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from finetune_monitor.record.history import read_run
from finetune_monitor.training import loop
from finetune_monitor.training.config import load_config
from finetune_monitor.training.rerender import Distance, distance, rerender
from finetune_monitor.training.run import run
from support import tiny

pytestmark = pytest.mark.slow

TRAININGS = {
    "lora": ["train.lora_dropout=0.3", "train.lora_layers=[attention, feed_forward, convolution]"],
    "full": ["train.method=full", "train.learning_rate=1e-4", "train.gradient_checkpointing=true"],
    "text_encoder": ["train.text_encoder=true", "train.lora_dropout=0.3"],
    "accumulation": ["train.gradient_accumulation=2", "train.batch_size=2", "train.lora_dropout=0.3"],
    "ema": ["train.ema_decay=0.9", "train.lora_dropout=0.3"],
    "bf16": ["train.mixed_precision=bf16", "train.lora_dropout=0.3"],
    "uncached": ["train.cache_latents=never", "data.random_crop=true", "data.random_flip=true", "data.workers=0"],
    "prodigy": ["train.optimizer=prodigy", "train.learning_rate=1.0"],
    "compile": [
        "train.compile=true",
        "train.lora_layers=[convolution]",
        "train.ema_decay=0.9",
        "train.gradient_checkpointing=true",
        "train.learning_rate=1e-2",
    ],
}

WATCHED = {
    "every_step": ["monitor.every=1"],
    "other_interval": ["monitor.every=2"],
    "other_grid": ["monitor.every=1", "monitor.grid.prompts=[a cat, a dog]", "monitor.grid.seeds=[9]"],
    "other_scheduler": ["monitor.every=3", "monitor.grid.sampler=EulerAncestralDiscreteScheduler"],
    "budget": ["monitor.every=1", "monitor.max_overhead=0.5"],
    "report": ["monitor.every=1", "monitor.sinks.report={}"],
    "broken": ["monitor.every=1", "monitor.on_failure=warn"],
}

PAIRS = [
    *(("lora", watched) for watched in WATCHED),
    *((training, "other_interval") for training in TRAININGS if training not in ("lora", "compile")),
    *((training, "broken") for training in ("full", "ema")),
    ("compile", "other_interval"),
]
QUIET = ["monitor.sinks={}", "monitor.stopping=[]"]


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled() -> Iterator[None]:
    """Kernels without vector instructions, in this process: compiled in two thirds of the time."""
    with inductor.patch({"cpp.vec_isa_ok": False, "cpp.simdlen": 1, "compile_threads": 1}):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, one_block, photos):
    """Trains once a setting: losses, weights and folder by (training, watched)."""
    found: dict = {}

    def go(training: str, watched: str, *overrides: str):
        if (training, watched) not in found:
            folder = tmp_path_factory.mktemp(f"{training}-{watched}")
            path = folder / "config.yaml"
            model = one_block if training == "compile" else tiny_model
            path.write_text(tiny.tiny_config(folder, model, photos))
            AcceleratorState._reset_state(reset_partial_state=True)
            found[training, watched] = losses_and_weights(load_config(path, [*TRAININGS[training], *overrides]))
        return found[training, watched]

    return go


def losses_and_weights(config):
    losses, train_step = [], loop.Trainer.train_step

    def noting(self, step):
        losses.append(train_step(self, step))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "train_step", noting)
        assert run(config) == 0
    weights = load_file(config.output_dir / "checkpoints/step-000006/weights.safetensors")
    return torch.stack(losses), weights, config.output_dir


@pytest.mark.parametrize(("training", "watched"), PAIRS)
def test_losses_and_weights_are_those_of_a_training_that_nobody_watches(trained, training, watched, monkeypatch):
    losses, weights, _ = trained(training, "alone", "monitor.enabled=false")
    if watched == "broken":
        break_half_way(monkeypatch)
    same_losses, same_weights, folder = trained(training, watched, *WATCHED[watched], *QUIET)
    assert torch.equal(losses, same_losses)
    assert len(set(losses.tolist())) == 6
    assert weights.keys() == same_weights.keys()
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert len(read_run(folder).evaluations) > 1


def test_an_image_of_a_compiled_training_is_made_again_pixel_for_pixel(trained):
    """As in test_rerender.py, but with the training above: to compile another one takes minutes."""
    _, _, folder = trained("compile", "other_interval", *WATCHED["other_interval"], *QUIET)
    AcceleratorState._reset_state(reset_partial_state=True)
    last = rerender(folder, 6, "p00-s1")
    assert last.distance == Distance(0, 0.0)
    with Image.open(folder / "images/step-000000/p00-s1.png") as base:
        assert distance(base, last.recorded).share > 0.1  # the weights make the image


def break_half_way(monkeypatch):
    """The denoiser is converted, its modes are changed, the first images are drawn, and then decoding raises."""

    def decode(pipeline, latents):
        pipeline.unet.train().to(torch.bfloat16)
        torch.manual_seed(99)
        raise RuntimeError("half-way")

    monkeypatch.setattr("finetune_monitor.rendering.renderer.decode", decode)
