"""DINOv2's embeddings are those of transformers' own use, and weights that cannot be had are said in seconds."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut, chelsea
from transformers import AutoImageProcessor, Dinov2Model, ViTConfig, ViTModel

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.models import weights
from finetune_monitor.models.dino import DinoEncoder, find_dino
from support.dino import write_dino

IMAGES = [Image.fromarray(each) for each in (astronaut(), chelsea(), astronaut()[:100])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_dino(tmp_path_factory.mktemp("dino"))


@torch.no_grad()
def test_the_class_token_of_the_library_normalized(folder):
    batch = [*IMAGES, *(IMAGES[0].crop((i, 2 * i, 300, 200)) for i in range(16))]  # two batches
    processor, network = AutoImageProcessor.from_pretrained(folder), Dinov2Model.from_pretrained(folder).eval()
    pooled = [network(**processor(image, return_tensors="pt")).pooler_output[0] for image in batch]
    expected = np.stack([row / np.linalg.norm(row) for row in pooled])
    torch.manual_seed(3)
    encoder = DinoEncoder(str(folder))
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))
    found = encoder.embed(batch)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - expected).max() < 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    assert encoder.embed([]).shape == (0, 16)
    assert (encoder.id, encoder.sha256) == (str(folder), sha256(folder / "model.safetensors"))


@torch.no_grad()
def test_dino_itself_is_a_vision_transformer_without_a_pooler(folder, tmp_path):
    torch.manual_seed(1)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=28)
    config.patch_size = 7
    network = ViTModel(config, add_pooling_layer=False).eval()
    network.save_pretrained(tmp_path)
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(IMAGES[1], return_tensors="pt")["pixel_values"]
    row = network(pixels).last_hidden_state[0, 0]
    assert np.allclose(DinoEncoder(str(tmp_path)).embed(IMAGES[1:2])[0], row / row.norm(), atol=1e-5)


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(folder, tmp_path, missing):
    copied = Path(shutil.copytree(folder, tmp_path / "dino"))
    (copied / missing).unlink()
    with pytest.raises(UserError, match=f"dino: .*in transformers layout; missing or damaged: {missing}"):
        DinoEncoder(str(copied))


def test_another_kind_of_network_is_refused(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "dino"))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "convnext"}))
    with pytest.raises(UserError, match="found a network of type convnext, expected one of vit, dinov2"):
        DinoEncoder(str(copied))
    (copied / "config.json").write_text("{")
    with pytest.raises(UserError, match=f"dino {copied}: .*; expected DINO or DINOv2 in the format of the hub"):
        DinoEncoder(str(copied))


def test_damaged_weights_and_those_of_another_network_are_named(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "dino"))
    (copied / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=f"dino {copied}: .*; expected DINO"):
        DinoEncoder(str(copied))
    save_file({"other.weight": torch.ones(2)}, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors: lacks embeddings\.cls_token and \d+ others"):
        DinoEncoder(str(copied))


def test_an_unreachable_hub_is_an_error_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"dino: facebook/dinov2-small: the model is required(?s:.*)hf download"):
        DinoEncoder("facebook/dinov2-small")
    assert time.monotonic() - began < weights.PROBE_SECONDS + 1
    with pytest.raises(UserError, match="dino: nowhere: no such folder; expected a folder in transformers layout"):
        find_dino("nowhere")


def test_a_cached_model_needs_no_hub(folder, tmp_path, monkeypatch):
    place = tmp_path / "hub/models--owner--dino"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0123abc")
    shutil.copytree(folder, place / "snapshots/0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert np.allclose(DinoEncoder("owner/dino").embed(IMAGES), DinoEncoder(str(folder)).embed(IMAGES))
    (place / "snapshots/0123abc/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"where model\.safetensors is missing"):
        DinoEncoder("owner/dino")
