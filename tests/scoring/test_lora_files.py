"""LoRA files are ordered by what their names and metadata say, and know which base model they are for."""

import json

import pytest
import torch
from safetensors.torch import save_file

from finetune_monitor.scoring.lora_files import (
    FLUX,
    SD1,
    SD2,
    SD3,
    SDXL,
    Base,
    is_complete,
    read_lora,
    series_of,
    weight_files,
)

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
PEFT = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def write(path, width=768, metadata=None, key=KOHYA):
    """A LoRA file of one layer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("lora_A", "lora_B") if "." in key else ("lora_down", "lora_up")
    tensors = {f"{key}.{names[0]}.weight": torch.zeros(4, width), f"{key}.{names[1]}.weight": torch.zeros(8, 4)}
    save_file(tensors, path, metadata=metadata)
    return path


def series(folder):
    return series_of([read_lora(path, folder) for path in weight_files(folder)])


LAYOUTS = {
    "kohya, epochs": (["ana-000001", "ana-000002", "ana"], [1, 2, 3]),
    "kohya, steps": (["ana-step00000500", "ana-step00001000"], [500, 1000]),
    "ai-toolkit": (["ana_000000500", "ana_000001000", "ana"], [500, 1000, 1001]),
    "OneTrainer": (["a2026-01-01_12-00-00-save-500-1-0", "a2026-01-01_13-00-00-save-1000-2-0"], [500, 1000]),
    "diffusers": (
        ["checkpoint-500/pytorch_lora_weights", "checkpoint-1000/pytorch_lora_weights", "pytorch_lora_weights"],
        [500, 1000, 1001],
    ),
    "finetune_monitor": (["weights/step-000500/pytorch_lora_weights", "weights/step-000500/ana_kohya"], [500]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_of_one_training_are_one_series(tmp_path, layout):
    names, steps = LAYOUTS[layout]
    for name in names:
        write(tmp_path / "output" / f"{name}.safetensors")
    [found] = series(tmp_path / "output")
    assert list(found.files) == steps


@pytest.mark.parametrize(
    ("metadata", "step", "epoch"),
    [
        ({"ss_steps": "1500", "ss_epoch": "10"}, 1500, 10),
        ({"training_info": json.dumps({"step": 1500, "epoch": 3})}, 1500, None),
        ({"training_info": "damaged"}, 1, None),
        ({"ss_steps": "many"}, 1, None),
    ],
)
def test_a_file_without_a_step_in_its_name_has_it_in_its_metadata(tmp_path, metadata, step, epoch):
    write(tmp_path / "ana.safetensors", metadata=metadata)
    [found] = series(tmp_path)
    assert list(found.files) == [step]
    assert found.files[step].said.epoch == epoch


def test_steps_in_the_metadata_order_epochs_and_the_last_file(tmp_path):
    for epoch, name in ((1, "ana-000001"), (2, "ana-000002"), (3, "ana")):
        metadata = {"ss_steps": str(100 * epoch), "ss_epoch": str(epoch)}
        write(tmp_path / f"{name}.safetensors", metadata=metadata)
    [found] = series(tmp_path)
    assert list(found.files) == [100, 200, 300]
    assert [file.said.epoch for file in found.files.values()] == [1, 2, 3]
    assert found.unordered == ()


def test_unrelated_names_are_series_of_their_own(tmp_path):
    for name in ("ana", "ben", "style_v2", "ana-000001"):
        write(tmp_path / f"{name}.safetensors")
    assert {each.name: list(each.files) for each in series(tmp_path)} == {
        "ana": [1, 2],
        "ben": [1],
        "style_v2": [1],
    }


@pytest.mark.parametrize(
    ("options", "base"),
    [
        ({}, Base(SD1, 768)),
        ({"key": PEFT}, Base(SD1, 768)),
        ({"width": 1024}, Base(SD2, 1024)),
        ({"width": 2048, "key": PEFT}, Base(SDXL, 2048)),
        ({"width": 16, "metadata": {"ss_base_model_version": "sdxl_base_v1-0"}}, Base(SDXL, 16)),
        ({"width": 16, "metadata": {"modelspec.architecture": "stable-diffusion-v1/lora"}}, Base(SD1, 16)),
        ({"width": 16, "key": "lora_unet_mid_block_attn1_to_q"}, Base(None, None)),
        ({"key": "lora_unet_double_blocks_0_img_attn_proj"}, Base(FLUX)),
        ({"key": "transformer.single_transformer_blocks.0.attn.to_q"}, Base(FLUX)),
        ({"key": "transformer.transformer_blocks.0.attn.add_k_proj"}, Base(SD3)),
        ({"key": "lora_unet_joint_blocks_0_context_block_attn_qkv"}, Base(SD3)),
        ({"key": "lora_te2_text_model_encoder_layers_0_mlp_fc1"}, Base(SDXL)),
    ],
)
def test_the_base_model_that_a_file_is_for(tmp_path, options, base):
    path = write(tmp_path / "ana.safetensors", **options)
    assert read_lora(path, path).base == base


@pytest.mark.parametrize(
    ("metadata", "trigger"),
    [
        ({"modelspec.trigger_phrase": "a photo of sks person"}, "a photo of sks person"),
        ({"ss_tag_frequency": json.dumps({"10_ana person": {"smile": 3}})}, "ana person"),
        ({"ss_tag_frequency": json.dumps({"img": {"ana": 3}})}, None),
        ({"ss_tag_frequency": "damaged"}, None),
        (None, None),
    ],
)
def test_the_words_that_ask_for_the_subject(tmp_path, metadata, trigger):
    path = write(tmp_path / "ana.safetensors", metadata=metadata)
    assert read_lora(path, path).trigger == trigger


def test_a_file_is_complete_with_its_last_byte(tmp_path):
    content = write(tmp_path / "ana.safetensors").read_bytes()
    for size in (0, 7, 8, 100, len(content) - 1):
        (tmp_path / "part.safetensors").write_bytes(content[:size])
        assert not is_complete(tmp_path / "part.safetensors")
    assert is_complete(tmp_path / "ana.safetensors")
