"""LoRA files under kohya's names: every layer of Stable Diffusion 1.5 is there, and they give the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from finetune_monitor.models.adapters import lora_layers
from finetune_monitor.models.export import Label, export_weights
from finetune_monitor.models.kohya import SD1, base_model, kohya_state
from finetune_monitor.training.trainable import TEXT_LAYERS, UNET_LAYERS
from support import tiny
from support.tiny import stable_diffusion as tiny_pipeline

ALL_LAYERS = [layer for kind in UNET_LAYERS.values() for layer in kind]
FILE = "ana_kohya.safetensors"


def image(pipeline: DiffusionPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(0)
    made = pipeline("a photo", num_inference_steps=2, generator=seeded, output_type="np", height=32, width=32)
    return made.images


def adapted(pipeline, with_text: bool = True, **options):
    """With LoRA layers everywhere."""
    settings = {"r": 4, "init_lora_weights": False, **options}
    pipeline.unet.add_adapter(LoraConfig(target_modules=ALL_LAYERS, **settings))
    if with_text:
        pipeline.text_encoder.add_adapter(LoraConfig(target_modules=TEXT_LAYERS, **settings))
    return pipeline


@pytest.fixture(scope="module")
def sd15() -> dict[str, torch.nn.Module]:
    """UNet and text encoder as Stable Diffusion 1.5 has them, adapted, without memory for their weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12))
        unet.add_adapter(LoraConfig(r=4, target_modules=ALL_LAYERS))
        text.add_adapter(LoraConfig(r=4, target_modules=TEXT_LAYERS))
    return {"unet": unet, "text_encoder": text}


def modules(state: dict[str, torch.Tensor]) -> set[str]:
    return {key.split(".")[0] for key in state}


@pytest.fixture(scope="module")
def names(sd15) -> set[str]:
    """The modules of a file, written by the documented rule."""
    layers = {name: lora_layers(model, "default") for name, model in sd15.items()}
    found = {}
    for component, own in layers.items():
        on_cpu = {
            name: type(layer)(torch.zeros(layer.down.shape), torch.zeros(layer.up.shape), layer.scale)
            for name, layer in own.items()
        }
        found[component] = on_cpu
    return modules(kohya_state(SD1, found))


@pytest.mark.slow
def test_all_attention_layers_of_stable_diffusion_1_5_are_named_by_the_rule(names):
    """Sixteen transformers, two attentions each, four projections; as kohya's scripts name them."""
    blocks = [f"down_blocks_{i}_attentions_{j}" for i in range(3) for j in range(2)] + ["mid_block_attentions_0"]
    blocks += [f"up_blocks_{i}_attentions_{j}" for i in range(1, 4) for j in range(3)]
    projections = [f"attn{k}_{to}" for k in (1, 2) for to in ("to_q", "to_k", "to_v", "to_out_0")]
    expected = {f"lora_unet_{block}_transformer_blocks_0_{each}" for block in blocks for each in projections}
    assert len(expected) == 128
    assert expected <= names


def test_feed_forward_convolutions_and_the_text_encoder_are_there(names):
    forward = [name for name in names if name.endswith(("ff_net_0_proj", "ff_net_2"))]
    assert len(forward) == 32
    assert "lora_unet_down_blocks_0_resnets_0_conv1" in names
    assert "lora_unet_up_blocks_3_resnets_2_conv_shortcut" in names
    text = {f"lora_te_text_model_encoder_layers_{i}_self_attn_{each}" for i in range(12) for each in TEXT_LAYERS}
    assert text == {name for name in names if name.startswith("lora_te")}


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [4, 2, 16])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_it_renders_the_same_image_and_alpha_and_rank_survive(tmp_path, alpha, options):
    trained = adapted(tiny_pipeline(), lora_alpha=alpha, **options)
    export_weights(trained, tmp_path / "best", {"step": 3}, Label("ana"))
    state = load_file(tmp_path / "best" / FILE)
    assert {len(value) for key, value in state.items() if key.endswith("lora_down.weight")} == {4}
    scale = 2 if options else 1  # rsLoRA divides alpha by the root of the rank
    assert {value.item() for key, value in state.items() if key.endswith("alpha")} == {alpha * scale}
    plain = tiny_pipeline()
    untrained = image(plain)
    plain.load_lora_weights(tmp_path / "best", weight_name=FILE)
    assert np.abs(image(plain) - image(trained)).max() < 1e-4
    assert np.abs(image(plain) - untrained).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("with_text", [False, True])
def test_a_dora_with_trained_magnitudes_renders_the_same_image(tmp_path, with_text):
    trained = adapted(tiny_pipeline(), with_text, use_dora=True)
    with torch.no_grad():
        for model in (trained.unet, trained.text_encoder):
            for name, parameter in model.named_parameters():
                if "lora_magnitude_vector" in name:
                    parameter *= 1.5
    export_weights(trained, tmp_path / "best", {"step": 3}, Label("ana"))
    plain = tiny_pipeline()
    plain.load_lora_weights(tmp_path / "best", weight_name="pytorch_lora_weights.safetensors")
    assert np.abs(image(plain) - image(trained)).max() < 1e-4


def test_the_metadata_is_what_the_tools_read(tmp_path):
    trained, note = adapted(tiny_pipeline(), lora_alpha=8), {"step": 300, "scores": {"face_similarity": 0.5}}
    label = Label("ana", "a photo of sks person", Image.new("RGB", (512, 256), "red"))
    export_weights(trained, tmp_path / "best", note, label)
    with safe_open(tmp_path / "best" / FILE, "pt") as file:
        found = file.metadata()
    assert (found["ss_base_model_version"], found["ss_network_dim"], found["ss_network_alpha"]) == ("sd_v1", "4", "8")
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert found["modelspec.trigger_phrase"] == "a photo of sks person"
    assert json.loads(found["ss_tag_frequency"]) == {"img": {"a photo of sks person": 1}}
    assert found["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert json.loads(found["finetune_monitor"]) == note


@pytest.mark.parametrize(
    ("make", "version"),
    [
        (tiny_pipeline, "sd_v1"),
        (lambda: tiny_pipeline(prediction_type="v_prediction"), "sd_v2_v"),
        (tiny.sdxl, "sdxl_base_v1-0"),
        (tiny.flux, None),
    ],
)
def test_the_base_model_is_named(make, version):
    found = base_model(make())
    assert (None if found is None else found.version) == version


def test_sdxl_has_two_text_encoders_under_names_of_their_own(tmp_path: Path):
    trained = tiny.sdxl()
    trained.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q"]))
    for encoder in (trained.text_encoder, trained.text_encoder_2):
        encoder.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"]))
    export_weights(trained, tmp_path / "best", {"step": 3}, Label("ana"))
    prefixes = {name.split("_text_model")[0] for name in modules(load_file(tmp_path / "best" / FILE)) if "te" in name}
    assert {"lora_te1", "lora_te2"} <= prefixes
