"""Base models as people have them: one file, fp16 variants, other VAEs, added words; everything else by its name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from finetune_monitor.base.errors import UserError
from finetune_monitor.models.base_model import BaseModel, read_embedding
from finetune_monitor.models.diffusers_hub import variant_of
from finetune_monitor.models.single_file import LAYOUTS, check_single_file, refuse_others
from support.original_layout import open_clip_weights, original, unet_weights, vae_weights
from support.tiny import stable_diffusion

NETWORKS = ("unet", "vae", "text_encoder")

EXTRA = {
    "betas": torch.zeros(1000),
    "model_ema.decay": torch.tensor(0.9),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}
"""What files of Stable Diffusion v1.5 hold besides."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {**original(stable_diffusion()), **EXTRA}


@pytest.fixture(scope="module")
def file(tmp_path_factory, weights) -> Path:
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save_file(weights, path)
    return path


def opened(base: BaseModel) -> StableDiffusionPipeline:
    return base.open(base.find())


def same(first: StableDiffusionPipeline, second: StableDiffusionPipeline) -> bool:
    pairs = [(getattr(first, name).state_dict(), getattr(second, name).state_dict()) for name in NETWORKS]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["safetensors", "ckpt", "bare.ckpt", "legacy.ckpt"])
def test_a_file_holds_the_same_model(tmp_path, weights, tiny_model, ending):
    path = tmp_path / f"model.{ending}"
    if ending == "safetensors":
        save_file(weights, path)
    else:
        content = weights if ending == "bare.ckpt" else {"state_dict": weights, "global_step": 3}
        torch.save(content, path, _use_new_zipfile_serialization=ending != "legacy.ckpt")
    found = opened(BaseModel(str(path), layout=str(tiny_model)))
    assert same(found, stable_diffusion())
    assert found.safety_checker is None


def test_a_file_in_half_precision_is_trained_in_full(tmp_path, weights, tiny_model):
    path = tmp_path / "half.safetensors"
    save_file({key: value.half() if value.is_floating_point() else value for key, value in weights.items()}, path)
    found = opened(BaseModel(str(path), layout=str(tiny_model)))
    assert {parameter.dtype for name in NETWORKS for parameter in getattr(found, name).parameters()} == {torch.float32}


@pytest.mark.parametrize(("layout", "unets", "vaes", "texts"), [("sd1", 686, 248, 196), ("sd2-v", 686, 248, 372)])
def test_the_names_and_shapes_of_the_real_sizes_fit_the_settings(layout, unets, vaes, texts):
    folder = str(LAYOUTS / layout)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder"))
    pipeline = StableDiffusionPipeline(vae, text, None, unet, None, None, None, requires_safety_checker=False)
    content = original(pipeline)
    if layout != "sd1":
        content = {key: value for key, value in content.items() if not key.startswith("cond_stage_model.")}
        content |= open_clip_weights(text)
    assert (len(unet_weights(unet)), len(vae_weights(vae)), len(text.state_dict())) == (unets, vaes, texts)
    assert "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_out.0.bias" in content
    assert content["first_stage_model.decoder.mid.attn_1.proj_out.weight"].shape == (512, 512, 1, 1)
    refuse_others(Path("x"), {key: tuple(value.shape) for key, value in content.items()})
    found = {
        "unet": convert_ldm_unet_checkpoint(dict(content), unet.config),
        "vae": convert_ldm_vae_checkpoint(dict(content), vae.config),
        "text_encoder": convert_ldm_clip_checkpoint(dict(content))
        if layout == "sd1"
        else convert_open_clip_checkpoint(text, dict(content)),
    }
    for name, converted in found.items():
        expected = getattr(pipeline, name).state_dict()
        read = {key.removeprefix("text_model."): value.shape for key, value in converted.items()}
        assert read == {key.removeprefix("text_model."): value.shape for key, value in expected.items()}


def test_stable_diffusion_1_needs_no_settings_and_2_asks_for_them(tmp_path, weights):
    key = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    one = {**weights, key: torch.zeros(320, 768)}
    wide = {name: value for name, value in one.items() if "attn2.to_k" not in name} | {key: torch.zeros(320, 768)}
    save_file(wide, tmp_path / "one.safetensors")
    assert check_single_file(tmp_path / "one.safetensors", None) == LAYOUTS / "sd1"
    save_file({**wide, key: torch.zeros(320, 1024)}, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=r"found Stable Diffusion 2\.x, whose file does not say .* set layout=sd2"):
        check_single_file(tmp_path / "two.safetensors", None)
    assert check_single_file(tmp_path / "two.safetensors", "sd2-v") == LAYOUTS / "sd2-v"


def test_unknown_sizes_and_settings_are_named(file, tmp_path):
    with pytest.raises(UserError, match=r"takes text embeddings with 16 numbers.*as `layout`"):
        check_single_file(file, None)
    with pytest.raises(
        UserError, match=r"layout: .*lacks model_index\.json.* expected sd1, sd2, sd2-v, sdxl, or a folder"
    ):
        check_single_file(file, str(tmp_path))
    with pytest.raises(UserError, match=r"its weights do not fit the settings of .*sd1"):
        opened(BaseModel(str(file), layout="sd1"))
    with pytest.raises(UserError, match=r"layout: found 'sd1', but .* is no file"):
        BaseModel(str(tmp_path), layout="sd1").find()


FIRST = "model.diffusion_model.input_blocks.0.0.weight"

OTHERS = {
    "the refiner of SDXL": {"conditioner.embedders.0.model.ln_final.bias": 8, FIRST: (8, 4, 3, 3)},
    "Playground v2.5": {"conditioner.embedders.1.model.ln_final.bias": 8, "edm_mean": 4},
    "CosXL": {"conditioner.embedders.1.model.ln_final.bias": 8, "edm_vpred.sigma_max": 1},
    "Flux": {"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": 8},
    "Stable Diffusion 3": {"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.bias": 8},
    "an inpainting model": {FIRST: (8, 9, 3, 3)},
    "an image-editing model": {FIRST: (8, 8, 3, 3)},
    "a LoRA; name the base model": {"lora_unet_mid_block_attn.lora_down.weight": (4, 8)},
    "a LoRA; name the base": {"unet.mid_block.to_q.lora_A.weight": (4, 8)},
    "a textual-inversion embedding; name it in `embeddings`": {"emb_params": (1, 768)},
    "a ControlNet": {"control_model.time_embed.0.bias": 8},
    "a VAE; name it in `vae`": {"encoder.conv_in.weight": 8, "decoder.conv_in.weight": 8},
    "one network of a pipeline in diffusers layout": {"down_blocks.0.resnets.0.conv1.bias": 8},
    "tensors of another kind": {"fc.weight": (2, 2)},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_what_is_no_stable_diffusion_is_refused_by_name(tmp_path, kind, ending):
    content = {name: torch.zeros(shape) for name, shape in OTHERS[kind].items()}
    path = tmp_path / f"model.{ending}"
    save_file(content, path) if ending == "safetensors" else torch.save(content, path)
    with pytest.raises(
        UserError,
        match=rf"model\.{ending}: found {kind}.*expected Stable Diffusion 1\.x or 2\.x, or SDXL, as one file",
    ):
        BaseModel(str(path)).find()


@pytest.mark.parametrize(
    ("prefix", "part"),
    [("first_stage_model.", "VAE"), ("cond_stage_model.", "text encoder"), ("model.diffusion_model.", "UNet")],
)
def test_a_file_without_a_part_is_refused(tmp_path, weights, prefix, part):
    save_file({key: v for key, v in weights.items() if not key.startswith(prefix)}, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=f"lacks its {part}" if part != "UNet" else "tensors of another kind"):
        BaseModel(str(tmp_path / "m.safetensors")).find()


def test_a_file_without_some_weights_is_refused(tmp_path, weights, tiny_model):
    few = {key: value for key, value in weights.items() if "middle_block.1.proj_in" not in key}
    save_file(few, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="its weights do not fit the settings"):
        opened(BaseModel(str(tmp_path / "m.safetensors"), layout=str(tiny_model)))


class Payload:
    """Code in a pickle: it would create a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return (Path.touch, (self.marker,))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, weights):
    torch.save({"state_dict": weights, "x": Payload(tmp_path / "ran")}, tmp_path / "m.ckpt")
    with pytest.raises(UserError, match=r"m\.ckpt: refused, because it is damaged, or holds code, which was not run"):
        BaseModel(str(tmp_path / "m.ckpt")).find()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x02."])
def test_a_damaged_file_is_named(tmp_path, ending, content):
    (tmp_path / f"m.{ending}").write_bytes(content)
    with pytest.raises(UserError, match=rf"m\.{ending}: "):
        BaseModel(str(tmp_path / f"m.{ending}")).find()


def test_a_folder_with_only_the_fp16_variant_is_loaded(tmp_path, tiny_model):
    assert variant_of(tiny_model) is None
    stable_diffusion().to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    assert variant_of(tmp_path / "half") == "fp16"
    for base in (BaseModel(str(tmp_path / "half")), BaseModel(str(tmp_path / "half"), variant="fp16")):
        assert opened(base).unet.dtype == torch.float32
    with pytest.raises(UserError, match=r"found no weights with variant 'fp16' \(\*\.fp16\.safetensors\)"):
        BaseModel(str(tiny_model), variant="fp16").find()


@pytest.fixture(scope="module")
def other() -> AutoencoderKL:
    return stable_diffusion(seed=1).vae


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "half", "file", "prefixed"])
def test_another_vae_takes_the_place_of_the_models_own(tmp_path, tiny_model, file, other, form):
    place = tmp_path / "vae"
    if form == "folder":
        other.save_pretrained(place)
    elif form == "half":
        AutoencoderKL.from_config(other.config).half().save_pretrained(place, variant="fp16")
    else:
        place = tmp_path / "vae.safetensors"
        prefix = "first_stage_model." if form == "prefixed" else ""
        save_file({prefix + key: value for key, value in vae_weights(other).items()}, place)
    base = BaseModel(str(file), vae=str(place), layout=str(tiny_model))
    assert base.find_parts() == []
    found = opened(base).vae
    assert found.dtype == torch.float32
    if form != "half":
        assert all(
            torch.equal(a, b) for a, b in zip(found.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_a_vae_that_does_not_fit_is_named(tmp_path, tiny_model, file):
    wrong = {"latent_channels": 16, "scaling_factor": 0.13025}
    for key, value in wrong.items():
        shutil.copytree(tiny_model / "vae", tmp_path / key)
        config = json.loads((tmp_path / key / "config.json").read_text())
        AutoencoderKL.from_config({**config, key: value}).save_pretrained(tmp_path / key)
        with pytest.raises(UserError, match=f"vae: .*{key}: its {key} is {value}, expected .*same version"):
            opened(BaseModel(str(tiny_model), vae=str(tmp_path / key)))
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    [problem] = BaseModel(str(file), vae=str(tmp_path / "x.safetensors")).find_parts()
    assert "found other weights, expected a VAE of Stable Diffusion" in problem


@pytest.mark.parametrize("form", ["safetensors", "a1111.pt", "bin"])
def test_words_with_embeddings_are_added(tmp_path, tiny_model, form):
    rows, path = torch.full((2, 16), 0.25), tmp_path / f"myword.{form}"
    if form == "safetensors":
        save_file({"emb_params": rows}, path)
    elif form == "bin":
        torch.save({"<anything>": rows[0]}, path)
        rows = rows[:1]
    else:
        torch.save({"string_to_param": {"*": rows}, "name": "x", "step": 3}, path)
    assert torch.equal(read_embedding(path), rows)
    pipeline = opened(BaseModel(str(tiny_model), embeddings=(path,)))
    ids = pipeline.tokenizer(pipeline.maybe_convert_prompt(path.stem, pipeline.tokenizer)).input_ids[1:-1]
    assert len(ids) == len(rows)
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids], rows)


def test_embeddings_that_cannot_be_used_are_all_named(tmp_path, tiny_model):
    save_file({"a": torch.zeros(1, 16), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    torch.save({"string_to_param": Payload(tmp_path / "ran")}, tmp_path / "code.pt")
    names = ("missing.pt", "two.safetensors", "code.pt")
    found = BaseModel(str(tiny_model), embeddings=tuple(tmp_path / name for name in names)).find_parts()
    assert ["no such file" in found[0], "textual-inversion" in found[1], "holds code" in found[2]] == [True] * 3
    assert not (tmp_path / "ran").exists()
    save_file({"emb_params": torch.zeros(1, 24)}, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="has 24 numbers per token, expected 16"):
        opened(BaseModel(str(tiny_model), embeddings=(tmp_path / "wide.safetensors",)))
