"""LoRA files of other trainers, rendered on one grid: every format, every strength, every layout of epochs."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file

from finetune_monitor.cli import main
from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.models.export import export_weights
from finetune_monitor.record.history import read_run
from finetune_monitor.scoring.adapters import load_base
from finetune_monitor.sinks.tensorboard import event_folder
from support import scoring, tiny
from support.original_layout import original
from support.scoring import score, write_config
from support.scripted import add_lora, trained

METRICS = "{brightness: {class: 'support.loops:Brightness'}, face_similarity: null, aesthetic: null}"
SETS = ("monitor.grid.steps=1", "monitor.grid.images_per_prompt=1", f"monitor.metrics={METRICS}")


def means(folder, column="brightness"):
    return {each.step: each.scores[column].mean for each in read_run(folder).evaluations}


def times(folder):
    return [each.wall_time for each in read_run(folder).evaluations]


def pixels(folder, step):
    files = sorted((folder / f"images/step-{step:06d}").glob("p*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("with_text", [False, True])
def test_the_same_lora_has_the_same_scores_in_every_format(here, tiny_model, config, with_text):
    pipeline = scoring.lora(1, with_text)
    files = scoring.write_formats(here, pipeline)
    if not with_text:
        files["peft"] = scoring.write_peft(here / "peft", 1)
    found = {}
    for name, file in files.items():
        assert score(file, "--base", tiny_model, "--config", config, "-o", here / f"out-{name}") == 0
        found[name] = here / f"out-{name}"
    diffusers = pixels(found["diffusers"], 1)
    assert all(np.abs(pixels(folder, 1) - diffusers).max() <= 1 for folder in found.values())
    assert np.abs(diffusers - pixels(found["diffusers"], 0)).max() > 20
    assert means(found["diffusers"])[1] == pytest.approx(means(found["kohya"])[1], abs=0.05)


@pytest.mark.slow
def test_strengths_are_runs_on_one_grid_and_change_the_images_in_their_order(here, tiny_model, config, capsys):
    scoring.write_formats(here, scoring.lora(1, size=0.2))
    arguments = (here / "kohya.safetensors", "--base", tiny_model, "--config", config, "--strengths", 0.25, 0.5, 1)
    assert score(*arguments, "-o", "out") == 0
    runs = [here / "out" / f"kohya-{strength}" for strength in ("0.25", "0.5", "1")]
    base = [pixels(run, 0) for run in runs]
    assert np.array_equal(base[0], base[1])
    assert np.array_equal(base[0], base[2])
    distances = [np.abs(pixels(run, 1) - base[0]).mean() for run in runs]
    assert 0 < distances[0] < distances[1] < distances[2]
    said = capsys.readouterr().out
    assert "kohya.safetensors at strength 0." in said or "kohya.safetensors at strength 1" in said
    assert (here / "out/page/index.html").exists()
    for run in runs:
        assert main(["show", str(run)]) == 0
        assert list((run / "tensorboard").rglob("events*"))
    assert main(["report", *map(str, runs), "-o", str(here / "both")]) == 0
    assert main(["compare", str(runs[0]), str(runs[2])]) == 0


@pytest.mark.slow
def test_the_floor_of_a_second_run_is_in_its_tensorboard_too(here, tiny_model, config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scoring.write_formats(here, scoring.lora(1))
    paths = (here / "kohya.safetensors", "--base", tiny_model, "--config", config, "--strengths", 0.5, 1)
    assert score(*paths, "-o", "out") == 0
    for strength in ("0.5", "1"):
        events = EventAccumulator(str(event_folder(here / f"out/kohya-{strength}"))).Reload()
        assert [event.step for event in events.Scalars("brightness")] == [0, 1]


@pytest.mark.slow
def test_the_model_card_does_not_claim_the_training(here, tiny_model, config):
    scoring.write_formats(here, scoring.lora(1, with_text=False))
    assert score(here / "kohya.safetensors", "--base", tiny_model, "--config", config, "-o", "out") == 0
    card = (here / "out/best/README.md").read_text()
    assert "\nMeasured with finetune_monitor" in card
    assert "diffusers-training" not in card


@pytest.mark.slow
def test_a_lora_of_sdxl(here, tmp_path, photos):
    base, trained = tiny.sdxl(), tiny.sdxl()
    base.save_pretrained(here / "sdxl")
    layers = {"unet": scoring.UNET_LAYERS, "text_encoder": scoring.TEXT_LAYERS, "text_encoder_2": scoring.TEXT_LAYERS}
    for name, own in layers.items():
        getattr(trained, name).add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=own))
    files = scoring.write_formats(here, trained)
    config = write_config(tmp_path, here / "sdxl", photos)
    for name, file in files.items():
        assert score(file, "--base", here / "sdxl", "--config", config, "-o", name) == 0
    first, second = (pixels(here / name, 1) for name in files)
    assert np.abs(first - second).max() <= 1
    assert np.abs(first - pixels(here / "kohya", 0)).max() > 5


@pytest.mark.slow
def test_other_weights_among_lora_files_are_left_out(here, tiny_model, config, capsys):
    files = scoring.write_formats(here, scoring.lora(1))
    (here / "output/checkpoint-100").mkdir(parents=True)
    shutil.copy(files["diffusers"], here / "output/checkpoint-100/pytorch_lora_weights.safetensors")
    save_file({"conv_in.weight": torch.zeros(2)}, here / "output/checkpoint-100/model.safetensors")
    assert score(here / "output", "--base", tiny_model, "--config", config, "-o", "out") == 0
    assert list(means(here / "out")) == [0, 100]
    assert "left out" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_our_own_is_scored_by_the_weights_of_its_steps(here, tiny_model, config):
    trained(add_lora(tiny.stable_diffusion()), here / "ana", [0.0, 0.4, 0.9, 0.2])
    assert score(here / "ana", "--base", tiny_model, "--config", config, "-o", "out") == 0
    assert list(means(here / "out")) == [0, 1, 2, 3]
    assert json.loads((here / "out/run.json").read_text())["hparams"]["score.step 2"].startswith("weights/step-000002")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tiny.sd3, tiny.flux])
def test_a_lora_of_a_transformer(here, photos, kind):
    base, trained_one = kind(), kind()
    base.save_pretrained(here / "base")
    trained_one.transformer.add_adapter(
        LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"])
    )
    export_weights(trained_one, here / "exported", {"step": 1})
    file = here / "exported/pytorch_lora_weights.safetensors"
    config = write_config(here, here / "base", photos)
    assert score(file, "--base", here / "base", "--config", config, "-o", "out") == 0
    assert np.abs(pixels(here / "out", 1) - pixels(here / "out", 0)).max() > 5


@pytest.mark.slow
def test_unrelated_files_are_runs_of_their_own(here, tiny_model, config, capsys):
    for seed, name in ((1, "ana"), (2, "style_v2")):
        files = scoring.write_formats(here, scoring.lora(seed))
        (here / "loras").mkdir(exist_ok=True)
        files["kohya"].rename(here / f"loras/{name}.safetensors")
    assert score(here / "loras", "--base", tiny_model, "--config", config, "-o", "out") == 0
    assert list(means(here / "out/ana-1")) == list(means(here / "out/style_v2-1")) == [0, 1]
    said = capsys.readouterr().out
    assert "ana.safetensors is best" in said or "style_v2.safetensors is best" in said or "base model is best" in said


def test_a_base_model_alone_is_step_0(here, tiny_model, config, capsys):
    assert score(tiny_model, "--config", config, "-o", "out") == 0
    assert list(means(here / "out")) == [0]
    assert "the base model: brightness" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_command_goes_on_and_scores_nothing_twice(here, tiny_model, config, capsys):
    files = scoring.write_formats(here, scoring.lora(1))
    (here / "loras").mkdir()
    shutil.copy(files["kohya"], here / "loras/ana-000001.safetensors")
    arguments = (here / "loras", "--base", tiny_model, "--config", config, "-o", "out")
    assert score(*arguments) == 0
    first = times(here / "out")
    assert score(*arguments) == 0
    assert times(here / "out") == first
    shutil.copy(files["kohya"], here / "loras/ana-000003.safetensors")
    assert score(*arguments) == 0
    assert times(here / "out")[:2] == first
    assert list(means(here / "out")) == [0, 1, 3]
    shutil.copy(files["kohya"], here / "loras/ana-000002.safetensors")
    files["diffusers"].rename(here / "loras/ana-000001.safetensors")
    capsys.readouterr()
    assert score(*arguments) == 0
    said = capsys.readouterr().out
    assert list(means(here / "out")) == [0, 1, 3]
    assert "ana-000002.safetensors: it comes before step 3, which was scored already" in said
    assert "ana-000001.safetensors: changed since it was scored" in said


@pytest.mark.slow
def test_a_config_names_the_base_model_and_the_photos(here, config):
    scoring.write_formats(here, scoring.lora(1))
    assert score(here / "kohya.safetensors", "--config", config, "-o", "out") == 0
    assert list(means(here / "out")) == [0, 1]


@pytest.mark.slow
def test_every_run_has_its_own_wandb_run(here, tiny_model, config):
    scoring.write_formats(here, scoring.lora(1))
    paths = (here / "kohya.safetensors", "--base", tiny_model, "--config", config, "--strengths", 0.5, 1)
    assert score(*paths, "-o", "out", "--set", "monitor.sinks.wandb={mode: offline}") == 0
    for strength in ("0.5", "1"):
        assert len(list((here / f"out/kohya-{strength}/wandb").glob("offline-run-*"))) == 1


@pytest.mark.slow
def test_the_trigger_of_the_file_is_in_the_prompts(here, tiny_model, photos):
    files = scoring.write_formats(here, scoring.lora(1))
    assert score(files["kohya"], "--base", tiny_model, "--references", photos, "--set", *SETS, "-o", "out") == 0
    grid = json.loads((here / "out/run.json").read_text())["grid"]
    assert grid["prompts"][0] == "a photo of sks person"
    assert len(grid["prompts"]) == 4


@pytest.mark.slow
def test_the_prompts_stay_when_files_with_other_words_appear(here, tiny_model, photos):
    (here / "loras").mkdir()
    for seed, name in ((1, "b"), (2, "a")):
        file = scoring.write_formats(here, scoring.lora(seed))["kohya"]
        words = {"modelspec.trigger_phrase": f"{name} person"}
        save_file(load_file(file), here / f"loras/{name}.safetensors", metadata=words)
        arguments = (here / "loras", "--base", tiny_model, "--references", photos, "--set", *SETS, "-o", "out")
        assert score(*arguments) == 0
    assert read_run(here / "out").grid.prompts == read_run(here / "out/a-1").grid.prompts
    assert read_run(here / "out").grid.prompts[0] == "a photo of b person"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_base_model_in_one_file_gives_the_scores_of_its_folder(here, tiny_model, config, suffix):
    file, weights = here / f"model.{suffix}", original(StableDiffusionPipeline.from_pretrained(tiny_model))
    save_file(weights, file) if suffix == "safetensors" else torch.save({"state_dict": weights}, file)
    lora = scoring.write_formats(here, scoring.lora(1, size=0.2))["kohya"]
    assert score(lora, "--base", tiny_model, "--config", config, "-o", "folder") == 0
    assert score(lora, "--base", file, "--config", config, "--set", f"layout={tiny_model}", "-o", "file") == 0
    assert score(file, "--config", config, "--set", f"layout={tiny_model}", "-o", "alone") == 0
    assert np.array_equal(pixels(here / "file", 1), pixels(here / "folder", 1))
    assert np.array_equal(pixels(here / "alone", 0), pixels(here / "folder", 0))


def test_a_lora_for_another_width_than_that_of_the_base_models_file_is_refused(here, tiny_model, config, capsys):
    weights = original(StableDiffusionPipeline.from_pretrained(tiny_model))
    wide = {name: torch.zeros(len(value), 24) for name, value in weights.items() if name.endswith("attn2.to_k.weight")}
    save_file(weights | wide, here / "model.safetensors")
    lora = scoring.write_formats(here, scoring.lora(1))["kohya"]
    assert score(lora, "--base", here / "model.safetensors", "--config", config, "-o", "out") == 2
    assert "found a LoRA for a model with text embeddings of width 16" in capsys.readouterr().err


def test_a_base_model_with_only_the_fp16_variant_is_loaded(tmp_path):
    tiny.stable_diffusion().to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    assert load_base(BaseModel(str(tmp_path / "half")), None, torch.device("cpu")).unet.config.cross_attention_dim == 16
