"""CLIP's embeddings are those of open_clip's documented use, and every image is encoded once."""

import gc
import json
import pickle

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics.aesthetic_head import read_head
from finetune_monitor.models import clip
from finetune_monitor.models.clip import ClipEncoder
from support.heads import write_clip
from support.places import DEMO

CLIP = DEMO / "clip"
PHOTO = Image.fromarray(astronaut())


@pytest.fixture
def encoder() -> ClipEncoder:
    return ClipEncoder(str(CLIP))


@pytest.fixture
def encoded(encoder, monkeypatch) -> list[int]:
    """Sizes of the batches that the network sees."""
    sizes: list[int] = []
    plain = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda batch: sizes.append(len(batch)) or plain(batch))
    return sizes


def images(count: int) -> list[Image.Image]:
    return [PHOTO.crop((3 * i, 2 * i, 512 - 11 * i, 480 - 7 * i)) for i in range(count)]


def test_mlps_of_large_models_run_in_bf16_where_the_cpu_is_made_for_it(encoder, monkeypatch):
    monkeypatch.setattr(clip, "has_bf16", lambda: True)
    assert torch.equal(ClipEncoder(str(CLIP)).embed(images(4)), encoder.embed(images(4)))  # it is small
    monkeypatch.setattr(clip, "HALVED_FROM", 1)
    halved = ClipEncoder(str(CLIP))
    shown = images(16)
    exact, found = encoder.embed(shown), halved.embed(shown)
    assert found.dtype == torch.float32
    assert not torch.equal(exact, found)
    assert (exact @ exact.T - found @ found.T).abs().max() < 1e-3
    head, _ = read_head(DEMO / "aesthetic_head.safetensors")
    assert np.abs(head.rate(exact) - head.rate(found)).max() < 0.01
    monkeypatch.setattr(clip, "has_bf16", lambda: False)
    assert torch.equal(ClipEncoder(str(CLIP)).embed(shown), exact)


@torch.no_grad()
def test_batches_agree_with_the_library_one_by_one(encoder):
    files = sorted((DEMO / "photos/astronaut").iterdir())
    batch = [*images(19), *(Image.open(file).convert("RGB") for file in files)]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    features = torch.cat([model.eval().encode_image(preprocess(image)[None]) for image in batch])
    found = encoder.embed(batch)
    assert (found - features / features.norm(dim=-1, keepdim=True)).abs().max() < 1e-5
    assert found.shape == (25, encoder.width)
    assert found.dtype == torch.float32
    assert encoder.embed([]).shape == (0, encoder.width)


def test_an_image_is_encoded_once_while_it_lives(encoder, encoded):
    batch = images(20)
    first = encoder.embed(batch)
    assert encoded == [16, 4]
    assert torch.equal(encoder.embed(batch[::-1]), first.flip(0))
    assert torch.equal(encoder.embed([batch[3], batch[3]]), first[[3, 3]])
    assert encoded == [16, 4]
    encoder.embed([*batch[:5], PHOTO, PHOTO])
    assert encoded == [16, 4, 1]


@pytest.mark.slow
def test_nothing_is_kept_of_images_that_are_gone(encoder):
    for color in ("red", "green", "blue"):  # one after the other, so that Python gives the same id again
        alone = ClipEncoder(str(CLIP)).embed([Image.new("RGB", (64, 64), color)])
        assert np.allclose(encoder.embed([Image.new("RGB", (64, 64), color)]), alone, atol=1e-5)
    encoder.embed([PHOTO])
    before = embeddings(encoder.width)
    encoder.embed(images(8))
    assert embeddings(encoder.width) > before
    encoder.embed([PHOTO])
    assert embeddings(encoder.width) == before


def embeddings(width: int) -> int:
    """How many embeddings there are in memory."""
    gc.collect()
    return sum(type(each) is torch.Tensor and each.shape == (width,) for each in gc.get_objects())


def test_the_two_steps_of_embedding_can_be_taken_alone(encoder):
    batch = images(5)
    preprocess = pickle.loads(pickle.dumps(encoder.preprocess))
    pixels = torch.stack([preprocess(image) for image in batch])
    found = encoder.encode(pixels)
    assert (found - encoder.embed(batch)).abs().max() < 1e-6
    assert torch.allclose(found.norm(dim=-1), torch.ones(5))
    assert not found.requires_grad


def test_it_says_what_it_is(encoder):
    assert encoder.source.id == str(CLIP)
    assert encoder.sha256 == sha256(CLIP / "open_clip_model.safetensors")


# --- texts --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_texts_agree_with_the_library_one_by_one(encoder):
    texts = [f"a photo of {number} cats" for number in range(18)] + ["", "a photo of sks person"]
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{CLIP}")
    features = torch.cat([model.eval().encode_text(tokenizer([text])) for text in texts])
    torch.manual_seed(3)
    found = encoder.embed_texts([*texts, texts[0]])
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))
    assert (found[:-1] - features / features.norm(dim=-1, keepdim=True)).abs().max() < 1e-5
    assert torch.equal(found[-1], found[0])
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    assert encoder.embed_texts([]).shape == (0, encoder.width)


def test_a_text_is_encoded_once(encoder, monkeypatch):
    encoded: list[int] = []
    monkeypatch.setattr(
        clip, "encode_texts", lambda source, texts: encoded.append(len(texts)) or torch.ones(len(texts), 2)
    )
    encoder.embed_texts(["a", "b", "a"])
    encoder.embed_texts(["b", "c"])
    encoder.embed_texts(["c", "a"])
    assert encoded == [2, 1]


def test_the_modules_that_read_text_are_not_kept(monkeypatch):
    loaded, load = [], open_clip.create_model_and_transforms
    monkeypatch.setattr(
        open_clip, "create_model_and_transforms", lambda **arguments: loaded.append(load(**arguments)) or loaded[-1]
    )
    encoder = ClipEncoder(str(CLIP))
    encoder.embed_texts(["a"])
    kept, _ = (model for model, *_ in loaded)
    assert kept.encode_image(encoder.preprocess(PHOTO)[None]).shape == (1, encoder.width)
    assert not any(hasattr(kept, part) for part in clip.TEXT_PARTS)


def test_what_is_too_long_is_cut_off_with_a_warning_once(encoder, caplog):
    fits = "cat " * 75  # beside the two tokens for beginning and end
    long = fits + "dog bird"
    found = encoder.embed_texts([fits, long, "cat"])
    encoder.embed_texts([long, fits])
    assert torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    [said] = [record.getMessage() for record in caplog.records]
    assert "reads 77 tokens of a text; ignoring the end of: cat cat" in said
    assert said.count("bird") == 1


def test_a_tokenizer_that_cannot_be_had_is_said_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    name = "roberta-ViT-B-32"
    source = clip.ClipSource(f"{name}/x", "x", tmp_path / "w", {"model_name": name})
    with pytest.raises(UserError, match=r"clip roberta-ViT-B-32/x: its tokenizer is missing(?s:.*)hf download roberta"):
        clip.encode_texts(source, ["a"])
    folder = write_clip(tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "roberta-base"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="cannot read its tokenizer"):
        clip.encode_texts(clip.resolve_clip(str(folder), None), ["a"])
