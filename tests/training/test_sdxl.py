"""LoRA training of SDXL: its step is the one of the paper, and a run with the shipped config ends as one of SD v1.5."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.cli import main
from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.record.history import read_run
from finetune_monitor.training.config import load_config
from finetune_monitor.training.data import step_seed
from finetune_monitor.training.early_warnings import about_resolution
from finetune_monitor.training.launcher import make_accelerator
from finetune_monitor.training.loop import Conditioning, Trainer
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.preflight import RunInputs
from finetune_monitor.training.rerender import Distance, rerender
from finetune_monitor.training.run import make_trainer, run
from finetune_monitor.training.trainable import load_pipeline
from support import tiny
from support.original_layout import original
from support.places import ROOT
from support.trainings import train as train_command

LORA = "pytorch_lora_weights.safetensors"
PROMPTS = ["a photo of sks person", "sks person at sea"]
SQUARES = [(600, 80, 160), None]
SIZES = [[500, 900, 32, 240, 64, 64], [500, 900, 0, 26, 64, 64]]
"""Of the squares at 64 px: a scale of 0.4, and of 0.128 for the center square, which begins at 200."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Two wide shots."""
    folder = tmp_path_factory.mktemp("wide")
    face = Image.fromarray(astronaut()).crop((100, 0, 350, 250))
    for index in range(2):
        image = Image.new("RGB", (900, 500), (90, 120, 160 + 40 * index))
        image.paste(face.resize((120 + 10 * index,) * 2), (600, 100))
        image.save(folder / f"{index}.png")
    return folder


@pytest.fixture
def config(write_config, tiny_sdxl, wide):
    """The tiny config on SDXL with overrides."""

    def go(*overrides: str):
        return load_config(write_config(), [f"model={tiny_sdxl}", f"data.instance_images={wide}", *overrides])

    return go


@pytest.fixture
def make(config, tiny_sdxl, wide):
    """A trainer on two photos with prompts and crops of their own, and LoRA layers that already have an effect."""

    def go(*overrides: str) -> tuple[Trainer, StableDiffusionXLPipeline]:
        settings = config("monitor.enabled=false", "train.batch_size=2", *overrides)
        settings.output_dir.mkdir(exist_ok=True)
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        accelerator, _ = make_accelerator(settings.train)
        pipeline = load_pipeline(tiny_sdxl, BaseModel(str(tiny_sdxl))).to(accelerator.device)
        paths = sorted(wide.iterdir())
        found = [TrainingPhoto(paths[i], PROMPTS[i], square=SQUARES[i]) for i in range(2)]
        trainer = make_trainer(settings, accelerator, pipeline, RunInputs(tiny_sdxl, found, [], None, None), [])
        torch.manual_seed(1)
        for name, parameter in trainer.trainable.parameters.items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        return trainer, pipeline

    return go


def reference_loss(trainer: Trainer, pipeline: StableDiffusionXLPipeline) -> torch.Tensor:
    """The loss of a step of SDXL by hand (Podell et al. 2023), on the latents and the noise of step 1."""
    generator = torch.Generator().manual_seed(step_seed(0, 1, 0, 0))
    latents, _ = trainer.latents[0].draw(0, generator)
    noise = torch.randn(latents.shape, generator=generator)
    t = torch.randint(1000, (2,), generator=generator)
    order = trainer.latents[0].photos.indices(0, 2)
    text, _, pooled, _ = pipeline.encode_prompt([PROMPTS[i] for i in order], do_classifier_free_guidance=False)
    time_ids = torch.tensor([SIZES[i] for i in order], dtype=torch.float32)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = torch.cumprod(1 - betas, 0)[t].view(2, 1, 1, 1)
    predicted = pipeline.unet(
        kept.sqrt() * latents + (1 - kept).sqrt() * noise,
        t,
        encoder_hidden_states=text,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
    ).sample
    return F.mse_loss(predicted, noise)


def gradients(trainer: Trainer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = trainer.trainable.parameters
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


STEPS = {
    "lora": [],
    "text": ["train.text_encoder=true"],
    "uncached": ["train.cache_latents=never", "data.workers=0"],
    "checkpointing": ["train.text_encoder=true", "train.gradient_checkpointing=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", STEPS)
def test_a_step_has_loss_and_gradients_of_a_reference_step(make, variant):
    trainer, pipeline = make(*STEPS[variant])
    loss, expected = trainer._loss(1, 0), reference_loss(trainer, pipeline)
    torch.testing.assert_close(loss, expected)
    found, wanted = gradients(trainer, loss), gradients(trainer, expected)  # fails if any has none
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], msg=name)
        assert wanted[name].abs().max() > 0, name
    trained = {name.split(".")[0] for name in found}
    assert trained == ({"unet", "text_encoder", "text_encoder_2"} if "text" in "".join(STEPS[variant]) else {"unet"})


def test_the_sizes_matter_to_the_step(make, monkeypatch):
    trainer, pipeline = make()
    monkeypatch.setitem(globals(), "SIZES", [[64, 64, 0, 0, 64, 64]] * 2)
    assert (trainer._loss(1, 0) - reference_loss(trainer, pipeline)).abs() > 1e-6


@pytest.mark.slow
def test_a_few_steps_learn(make):
    trainer, _ = make("train.learning_rate=1e-2")

    def mean_loss() -> float:
        with torch.no_grad():
            return float(torch.stack([trainer._loss(1000 + i, 0) for i in range(16)]).mean())

    before = mean_loss()
    for step in range(1, 41):
        trainer.train_step(step)
    assert mean_loss() < 0.99 * before


@pytest.mark.parametrize("trained", [False, True])
def test_embeddings_from_the_cache_are_those_of_diffusers(trained):
    pipeline = tiny.sdxl()
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
    conditioning = Conditioning(pipeline, encoders, [PROMPTS, ["a person"] * 2], trained, batch_size=2)
    assert (conditioning.cached is None) == trained
    found = conditioning.text([[1, 0], [1, 1]])
    text, _, pooled, _ = pipeline.encode_prompt(
        [PROMPTS[1], PROMPTS[0], "a person", "a person"], do_classifier_free_guidance=False
    )
    torch.testing.assert_close(found.tokens, text)
    torch.testing.assert_close(found.pooled, pooled)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], ["train.text_encoder=true", "train.ema_decay=0.9"]], ids=["unet", "text"])
def test_a_run_that_is_resumed_or_monitored_ends_with_the_same_weights(config, tmp_path, overrides):
    def go(name: str, *more: str) -> dict[str, torch.Tensor]:
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        settings = ["monitor.stopping=[]", "monitor.sinks={}", f"output_dir={tmp_path / name}", *overrides, *more]
        assert run(config(*settings)) == 0
        return load_file(tmp_path / name / "last" / LORA)

    off = "monitor.enabled=false"
    whole = go("whole", off)
    go("cut", off, "train.max_steps=2")
    for other in (go("cut", off), go("monitored")):
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[name], other[name]) for name in whole)


@pytest.mark.slow
def test_images_in_half_precision_are_made_again_pixel_for_pixel(config, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = ["train.mixed_precision=bf16", "train.text_encoder=true", "train.lora_alpha=4", "monitor.sinks={}"]
    settings += ["train.learning_rate=1e-2", "monitor.stopping=[]", f"output_dir={tmp_path / 'run'}"]
    assert run(config(*settings)) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert rerender(tmp_path / "run", 6, "p00-s1").distance == Distance(0, 0.0)


@pytest.mark.slow
def test_weights_reach_the_device_in_the_precision_of_the_training(config, monkeypatch):
    """In float32 first, SDXL would need twice the memory."""
    moved: list[set[torch.dtype]] = []
    move = StableDiffusionXLPipeline.to

    def noted(pipeline: StableDiffusionXLPipeline, *arguments: object, **named: object) -> StableDiffusionXLPipeline:
        moved.append({each.dtype for each in pipeline.unet.parameters() if not each.requires_grad})
        return move(pipeline, *arguments, **named)

    monkeypatch.setattr(StableDiffusionXLPipeline, "to", noted)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(config("monitor.enabled=false", "train.mixed_precision=bf16", "train.max_steps=1")) == 0
    assert moved == [{torch.bfloat16}]


@pytest.mark.slow
def test_a_file_is_trained_as_its_folder_is(config, tiny_sdxl, tmp_path):
    save_file(original(tiny.sdxl()), tmp_path / "base.safetensors")
    weights = []
    for base in ([], [f"model={tmp_path / 'base.safetensors'}", f"layout={tiny_sdxl}"]):
        AcceleratorState._reset_state(reset_partial_state=True)
        folder = tmp_path / f"run-{len(base)}"
        settings = ["monitor.enabled=false", "train.max_steps=2", "train.learning_rate=1e-2", f"output_dir={folder}"]
        assert run(config(*settings, *base)) == 0
        weights.append(load_file(folder / "last" / LORA))
    for name, value in weights[0].items():  # not bit for bit: weights from a file lie elsewhere in memory
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)


def test_full_training_is_refused_before_anything_is_loaded(config):
    with pytest.raises(UserError, match=r"train\.method: found full, but SDXL can only be trained with lora"):
        run(config("train.method=full"))


@pytest.mark.parametrize(("resolution", "warned"), [(512, True), (760, True), (768, False), (1024, False)])
def test_a_resolution_below_that_of_the_model_is_said(config, resolution, warned):
    found = list(about_resolution(config(f"data.resolution={resolution}"), (1024, 1024)))
    assert len(found) == warned
    assert all("the base model generates images of 1024 px" in each for each in found)


@pytest.mark.slow
def test_a_low_resolution_is_no_error(config, tiny_sdxl, tmp_path, caplog):
    large = tmp_path / "large"
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.unet.register_to_config(sample_size=64)
    pipeline.save_pretrained(large)
    assert run(config(f"model={large}", "monitor.enabled=false", "train.max_steps=1")) == 0
    assert "data.resolution is 64, but the base model generates images of 128 px" in caplog.text


METRICS = (
    '{brightness: {class: "support.loops:Brightness"}, validation_loss: {}, face_similarity: null, aesthetic: null}'
)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, tiny_sdxl, photos) -> Path:
    """A run of `train.py` with the shipped config for SDXL, at a tiny size."""
    folder = tmp_path_factory.mktemp("shipped")
    overrides = [
        *(f"model={tiny_sdxl}", "variant=null", "vae=null", f"output_dir={folder / 'ana'}"),
        *(f"data.instance_images={photos}", "data.held_out=1", "data.resolution=64"),
        *(f"data.class_images={folder / 'class'}", "data.class_count=2"),
        *("train.rank=2", "train.learning_rate=1e-2", "train.warmup_steps=0", "train.max_steps=4"),
        *("train.checkpoint_every=2", "train.mixed_precision=no"),
        *("monitor.every=2", "monitor.grid.steps=2", "monitor.grid.images_per_prompt=2"),
        f"monitor.metrics={METRICS}",
        *("monitor.stopping=[]", "monitor.sinks={report: {}}"),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "HF_HUB_OFFLINE": "1"}
    command = train_command(ROOT / "configs/sdxl_lora.yaml", *overrides)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "ana"


def own_image(model: Path, weights: Path, name: str, prompt: str, seed: int) -> np.ndarray:
    """What StableDiffusionXLPipeline itself generates with exported weights."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(weights, weight_name=name)
    generator = torch.Generator().manual_seed(seed)
    made = pipeline(prompt, num_inference_steps=2, guidance_scale=5.0, generator=generator, height=64, width=64)
    return np.asarray(made.images[0], dtype=np.int16)


@pytest.mark.slow
def test_the_shipped_config_trains_and_its_weights_give_diffusers_the_recorded_images(shipped, tiny_sdxl):
    history = read_run(shipped)
    assert [each.step for each in history.evaluations] == [0, 2, 4]
    assert all(np.isfinite(each.scores["validation_loss"].mean) for each in history.evaluations)
    assert history.run["pipeline"]["class"] == "StableDiffusionXLPipeline"
    assert len(list((shipped.parent / "class").glob("*.png"))) == 2
    cell = history.grid.cells[3]
    recorded = np.asarray(Image.open(shipped / f"images/step-000004/{cell.id}.png"), dtype=np.int16)
    floor = np.asarray(Image.open(shipped / f"images/step-000000/{cell.id}.png"), dtype=np.int16)
    assert np.abs(recorded - floor).max() > 5
    for name in (LORA, "ana_kohya.safetensors"):
        assert np.abs(own_image(tiny_sdxl, shipped / "last", name, cell.prompt, cell.seed) - recorded).max() <= 1


@pytest.mark.slow
def test_its_weights_are_exported_scored_and_described(shipped, tiny_sdxl, tmp_path, capsys):
    file = tmp_path / "ana.safetensors"
    assert main(["export", str(shipped), "--step", "4", "--to", str(file)]) == 0
    config = tmp_path / "score.yaml"
    config.write_text((shipped / "config.yaml").read_text())
    AcceleratorState._reset_state(reset_partial_state=True)
    out = tmp_path / "scores"
    assert main(["score", str(file), "--base", str(tiny_sdxl), "--config", str(config), "-o", str(out)]) == 0
    [scored] = [read_run(path.parent) for path in out.glob("**/run.json")]
    trained = read_run(shipped).at(4).scores["brightness"].mean
    assert scored.evaluations[-1].scores["brightness"].mean == pytest.approx(trained, abs=0.5)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(["render", str(shipped), "--step", "4", "--cell", "p00-s0"]) == 0
    card = (shipped / "best/README.md").read_text()
    assert "- stable-diffusion-xl\n" in card
    assert "- stable-diffusion\n" not in card
    best = json.loads((shipped / "best/finetune_monitor.json").read_text())["step"]
    assert best == read_run(shipped).run["ended"]["best_step"] > 0
