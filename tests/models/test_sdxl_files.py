"""Base models and LoRA files of SDXL: their original names at full size, files and folders, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune_monitor.base.errors import UserError
from finetune_monitor.models.adapters import lora_layers
from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.models.export import Label, export_weights
from finetune_monitor.models.families import SDXL, family_of
from finetune_monitor.models.kohya import SDXL as KOHYA
from finetune_monitor.models.original_names import original_name
from finetune_monitor.models.single_file import LAYOUTS, check_single_file, refuse_others
from finetune_monitor.scoring.adapters import base_of
from finetune_monitor.training.trainable import TEXT_LAYERS, UNET_LAYERS, load_pipeline
from support import tiny
from support.original_layout import UNET, XL_TEXT_2, original, unet_weights, vae_weights

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
ALL_LAYERS = [layer for kind in UNET_LAYERS.values() for layer in kind]
FILE = "ana_kohya.safetensors"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "sdxl.safetensors"
    save_file(original(tiny.sdxl()), path)
    return path


@pytest.fixture(scope="module")
def full_size() -> StableDiffusionXLPipeline:
    """SDXL as large as it is, by the shipped settings, without memory for its weights."""
    settings = str(LAYOUTS / "sdxl")
    with torch.device("meta"):
        return StableDiffusionXLPipeline(
            AutoencoderKL.from_config(AutoencoderKL.load_config(settings, subfolder="vae")),
            CLIPTextModel(CLIPTextConfig.from_pretrained(settings, subfolder="text_encoder")),
            CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(settings, subfolder="text_encoder_2")),
            None,
            None,
            UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(settings, subfolder="unet")),
            None,
        )


def same(first: StableDiffusionXLPipeline, second: StableDiffusionXLPipeline) -> bool:
    pairs = [(getattr(first, name).state_dict(), getattr(second, name).state_dict()) for name in NETWORKS]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


def test_the_settings_give_as_many_weights_as_sdxl_has(full_size):
    sizes = {name: sum(each.numel() for each in getattr(full_size, name).parameters()) for name in NETWORKS}
    assert sizes == {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    }
    assert family_of(full_size) is SDXL


def test_the_names_and_shapes_of_the_real_size_fit_the_settings(full_size):
    content = original(full_size)
    assert (len(unet_weights(full_size.unet)), len(vae_weights(full_size.vae))) == (1680, 248)
    assert content["model.diffusion_model.label_emb.0.0.weight"].shape == (1280, 2816)
    assert "model.diffusion_model.middle_block.1.transformer_blocks.9.attn2.to_k.weight" in content
    assert content["conditioner.embedders.1.model.text_projection"].shape == (1280, 1280)
    refuse_others(Path("x"), {key: tuple(value.shape) for key, value in content.items()})
    found = {
        "unet": convert_ldm_unet_checkpoint(dict(content), full_size.unet.config),
        "vae": convert_ldm_vae_checkpoint(dict(content), full_size.vae.config),
        "text_encoder": convert_ldm_clip_checkpoint(dict(content)),
        "text_encoder_2": convert_open_clip_checkpoint(full_size.text_encoder_2, dict(content), prefix=XL_TEXT_2),
    }
    for name, converted in found.items():
        expected = getattr(full_size, name).state_dict()
        read = {key.removeprefix("text_model."): value.shape for key, value in converted.items()}
        assert read == {key.removeprefix("text_model."): value.shape for key, value in expected.items()}


def test_every_layer_of_the_real_unet_has_its_original_name(full_size):
    diffusers = [key for key in full_size.unet.state_dict() if key.endswith(".weight")]
    originals = [key.removeprefix(UNET) for key in unet_weights(full_size.unet) if key.endswith(".weight")]
    assert [f"{original_name(key.removesuffix('.weight'), 2)}.weight" for key in diffusers] == originals


@pytest.mark.slow
def test_kohyas_names_at_full_size():
    """Eleven blocks with transformers, with 70 transformer blocks in all, as kohya's scripts name them for SDXL."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(str(LAYOUTS / "sdxl"), subfolder="unet")
        )
        unet.add_adapter(LoraConfig(r=4, target_modules=UNET_LAYERS["attention"]))
    depths = {"input_blocks_4_1": 2, "input_blocks_5_1": 2, "input_blocks_7_1": 10, "input_blocks_8_1": 10}
    depths |= {"middle_block_1": 10, **{f"output_blocks_{i}_1": 10 if i < 3 else 2 for i in range(6)}}
    blocks = [f"lora_unet_{block}_transformer_blocks_{i}" for block, depth in depths.items() for i in range(depth)]
    attentions = [f"attn{k}_{to}" for k in (1, 2) for to in ("to_q", "to_k", "to_v", "to_out_0")]
    expected = {f"{block}_{each}" for block in blocks for each in attentions}
    assert len(expected) == 560
    assert {KOHYA.name("unet", name) for name in lora_layers(unet, "default")} == expected


def test_a_strange_layer_has_no_original_name():
    with pytest.raises(ValueError, match="controlnet_cond_embedding: expected a layer of a UNet of Stable Diffusion"):
        original_name("controlnet_cond_embedding", 2)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [UNET_LAYERS["attention"], ALL_LAYERS])
@pytest.mark.parametrize("name", [FILE, "pytorch_lora_weights.safetensors"])
def test_diffusers_reads_both_files_back_as_they_were(tmp_path, layers, name):
    trained, plain = tiny.sdxl(), tiny.sdxl()
    parts = {"unet": layers, "text_encoder": TEXT_LAYERS, "text_encoder_2": TEXT_LAYERS}
    for part, targets in parts.items():
        config = LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=targets)
        getattr(trained, part).add_adapter(config)
    export_weights(trained, tmp_path / "best", {"step": 3}, Label("ana"))
    plain.load_lora_weights(tmp_path / "best", weight_name=name, adapter_name="default")
    for part in parts:
        own, read = (lora_layers(getattr(each, part), "default") for each in (trained, plain))
        assert own.keys() == read.keys()
        for layer in own:
            pair = [each[layer].scale * each[layer].up.flatten(1) @ each[layer].down.flatten(1) for each in (own, read)]
            torch.testing.assert_close(*pair)
    assert all(key.startswith(("lora_unet_", "lora_te1_", "lora_te2_")) for key in load_file(tmp_path / "best" / FILE))


def test_a_file_holds_the_same_model(file, tiny_sdxl):
    base = BaseModel(str(file), layout=str(tiny_sdxl))
    found = base.open(base.find())
    assert same(found, tiny.sdxl())
    assert (found.tokenizer.pad_token, found.tokenizer_2.pad_token) == ("<|endoftext|>", "!")
    assert found.config.force_zeros_for_empty_prompt


def test_a_file_of_the_real_size_needs_no_settings(tmp_path, file):
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    content = {name: value for name, value in load_file(file).items() if "attn2.to_k" not in name}
    save_file({**content, key: torch.zeros(640, 2048)}, tmp_path / "x.safetensors")
    assert check_single_file(tmp_path / "x.safetensors", None) == LAYOUTS / "sdxl"
    assert str(base_of(str(tmp_path / "x.safetensors"))) == "Stable Diffusion XL"
    save_file({**content, key: torch.zeros(640, 2048), "v_pred": torch.zeros(0)}, tmp_path / "v.safetensors")
    with pytest.raises(UserError, match="found SDXL that predicts velocity, but sdxl is for models that predict noise"):
        check_single_file(tmp_path / "v.safetensors", None)


def test_a_layout_of_another_family_is_refused(file):
    with pytest.raises(UserError, match=r"layout: .*sd1 lacks text_encoder_2/config\.json"):
        BaseModel(str(file), layout="sd1").find()


def test_a_folder_with_only_the_fp16_variant_is_trained_in_full_precision(tmp_path):
    tiny.sdxl().to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    base = BaseModel(str(tmp_path / "half"))
    found = load_pipeline(base.find(), base)
    assert {parameter.dtype for name in NETWORKS for parameter in getattr(found, name).parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "file"])
def test_another_vae_must_be_one_of_sdxl(tmp_path, tiny_sdxl, form):
    model, place = shutil.copytree(tiny_sdxl, tmp_path / "model"), tmp_path / "vae"
    config = json.loads((model / "vae/config.json").read_text())
    (model / "vae/config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    fixed = tiny.autoencoder(scaling_factor=0.13025, force_upcast=False)
    if form == "file":
        place = tmp_path / "vae.safetensors"
        save_file(vae_weights(fixed), place)
    else:
        fixed.save_pretrained(place)
    base = BaseModel(str(model), vae=str(place))
    found = base.open(base.find()).vae
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in fixed.state_dict().items())
    assert found.config.force_upcast == (form == "file")  # a file does not say that it needs no float32
    tiny.autoencoder().save_pretrained(tmp_path / "sd1")
    with pytest.raises(UserError, match=r"its scaling_factor is 0\.18215, expected 0\.13025"):
        BaseModel(str(model), vae=str(tmp_path / "sd1")).open(model)


OTHERS = {
    "StableDiffusionXLImg2ImgPipeline": r"found a StableDiffusionXLImg2ImgPipeline \(the refiner of SDXL",
    "StableDiffusionXLInpaintPipeline": r"found a StableDiffusionXLInpaintPipeline \(an inpainting model of SDXL",
    "FluxPipeline": "found a FluxPipeline, expected a StableDiffusionPipeline",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_pipelines_are_refused_by_name(tmp_path, tiny_sdxl, kind):
    other = shutil.copytree(tiny_sdxl, tmp_path / "other")
    index = other / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionXLPipeline", kind))
    with pytest.raises(UserError, match=OTHERS[kind]):
        BaseModel(str(other)).family(other)


def test_a_refiner_that_names_no_class_of_its_own_is_refused(tmp_path, tiny_sdxl):
    other = shutil.copytree(tiny_sdxl, tmp_path / "other")
    index = other / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "text_encoder": [None, None]}))
    with pytest.raises(UserError, match="found SDXL without text_encoder, as in the refiner of SDXL"):
        BaseModel(str(other)).family(other)


def test_a_file_without_one_of_its_text_encoders_is_refused(tmp_path, file):
    content = {name: value for name, value in load_file(file).items() if not name.startswith(XL_TEXT_2)}
    save_file(content, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="lacks its text encoder 2"):
        BaseModel(str(tmp_path / "x.safetensors")).find()


def test_embeddings_are_refused_and_not_half_loaded(tmp_path, tiny_sdxl):
    save_file({"emb_params": torch.zeros(1, 16)}, tmp_path / "word.safetensors")
    base = BaseModel(str(tiny_sdxl), embeddings=(tmp_path / "word.safetensors",))
    with pytest.raises(UserError, match=r"embeddings: found .*, but SDXL has 2 text encoders"):
        base.family(base.find())
