"""Exported weights load where the ecosystem loads them, and give the same images."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import LoraConfig

from finetune_monitor.models.export import LORA_FILE, export_weights
from support import tiny
from support.tiny import stable_diffusion as tiny_pipeline

NOTE = {"step": 300}


def image(pipeline: DiffusionPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(0)
    made = pipeline("a photo", num_inference_steps=2, generator=seeded, output_type="np", height=32, width=32)
    return made.images


@pytest.mark.parametrize("alpha", [4, 2, 16])
@pytest.mark.parametrize("with_text", [False, True])
def test_lora_weights_load_into_a_plain_pipeline(tmp_path, alpha, with_text):
    trained = tiny_pipeline()
    unet_layers = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]
    trained.unet.add_adapter(LoraConfig(r=4, lora_alpha=alpha, init_lora_weights=False, target_modules=unet_layers))
    if with_text:
        layers = ["q_proj", "k_proj", "v_proj", "out_proj"]
        trained.text_encoder.add_adapter(
            LoraConfig(r=4, lora_alpha=alpha, init_lora_weights=False, target_modules=layers)
        )
    export_weights(trained, tmp_path / "best", NOTE)
    assert (tmp_path / "best" / LORA_FILE).is_file()
    assert json.loads((tmp_path / "best/finetune_monitor.json").read_text()) == NOTE

    plain = tiny_pipeline()
    untrained = image(plain)
    plain.load_lora_weights(tmp_path / "best")
    assert np.abs(image(plain) - image(trained)).max() < 1e-4
    assert np.abs(image(plain) - untrained).max() > 1e-3


def test_a_pipeline_without_adapters_is_written_whole(tmp_path):
    trained = tiny_pipeline(seed=3)
    export_weights(trained, tmp_path / "best", NOTE)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "best")
    assert np.array_equal(image(loaded), image(trained))


@pytest.mark.parametrize("kind", [tiny.sdxl, tiny.sd3, tiny.flux])
def test_lora_weights_of_other_pipelines_load_too(tmp_path, kind):
    """Adapted as diffusers' own scripts do: the denoiser and the first text encoder."""
    trained, plain = kind(), kind()
    denoiser = trained.unet if hasattr(trained, "unet") else trained.transformer
    denoiser.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    trained.text_encoder.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"]))
    export_weights(trained, tmp_path / "best", NOTE)
    untrained = image(plain)
    plain.load_lora_weights(tmp_path / "best")
    assert np.abs(image(plain) - image(trained)).max() < 1e-4
    assert np.abs(image(plain) - untrained).max() > 1e-3
