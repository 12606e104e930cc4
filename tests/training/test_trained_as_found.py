"""Photos are trained with their own captions, repeats, and crops; runs go on with those that they began with."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.record.run_directory import CONTACT_SHEET, PHOTOS
from finetune_monitor.training.config import load_config
from finetune_monitor.training.data import Photos, Views
from finetune_monitor.training.loop import Conditioning
from finetune_monitor.training.run import run

PROMPTS = ["a photo of sks person", "sks person at sea", "a photo of sks person"]


@pytest.fixture
def wide(tmp_path) -> Path:
    """Two wide shots."""
    face = Image.fromarray(astronaut()).crop((100, 0, 350, 250))
    folder = tmp_path / "wide"
    folder.mkdir()
    for index in range(2):
        image = Image.new("RGB", (900, 500), (90, 120, 160))
        image.paste(face.resize((120 + 10 * index,) * 2), (600, 100))
        image.save(folder / f"{index}.png")
    return folder


@pytest.fixture
def train(write_config, wide, tmp_path):
    """Runs the tiny config on the wide shots."""
    path = write_config()

    def go(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
        settings = [f"output_dir={folder}", f"data.instance_images={wide}", "monitor.enabled=false", *overrides]
        assert run(load_config(path, settings)) == 0
        return folder

    return go


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last/pytorch_lora_weights.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("trained", [False, True])
def test_each_photo_is_conditioned_on_its_own_caption(pipeline, trained):
    conditioning = Conditioning(pipeline, [pipeline.text_encoder], [PROMPTS, ["a person"] * 2], trained, batch_size=2)
    found = conditioning.text([[1, 0], [1, 1]]).tokens
    texts = [PROMPTS[1], PROMPTS[0], "a person", "a person"]
    expected = [pipeline.encode_prompt(text, "cpu", 1, False)[0] for text in texts]
    assert torch.allclose(found, torch.cat(expected), atol=1e-6)
    assert found.requires_grad == trained


def test_one_prompt_is_encoded_once(pipeline):
    conditioning = Conditioning(pipeline, [pipeline.text_encoder], [["sks"] * 3], False, batch_size=2)
    assert len(conditioning.cached.tokens) == 1
    assert torch.equal(conditioning.text([[0, 2]]).tokens[0], conditioning.text([[1, 1]]).tokens[1])


@pytest.mark.parametrize(("repeats", "epoch"), [((), [1, 1, 1]), ((10, 10, 10), [1, 1, 1]), ((4, 2, 2), [2, 1, 1])])
def test_an_epoch_has_each_photo_as_often_as_its_repeats_say(repeats, epoch):
    photos = Photos([Path(name) for name in "abc"], Views(64), seed=0, repeats=repeats)
    length = sum(epoch)
    assert photos.epoch_length == length
    for start in (0, length):
        assert [photos.indices(start, length).count(index) for index in range(3)] == epoch


@pytest.mark.slow
def test_captions_change_what_is_learned_and_are_kept_by_a_resumed_run(train, wide):
    plain = train("plain")
    (wide / "0.txt").write_text("sks person at sea")
    captioned = train("captioned")
    assert not same(plain, captioned)
    assert same(plain, train("off", "data.captions=false"))
    cut = train("cut", "train.max_steps=2")
    (wide / "0.txt").write_text("sks person at home")
    with pytest.raises(UserError, match=r"data\.captions: '\w+' in the checkpoint, '\w+' in the config"):
        train("cut")
    (wide / "0.txt").write_text("sks person at sea")
    assert same(captioned, train("cut"))
    assert cut.name == "cut"


@pytest.mark.slow
def test_crops_are_recorded_shown_and_kept_by_a_resumed_run(train):
    face, center = train("face"), train("center", "data.crop=center")
    assert not same(face, center)
    recorded = json.loads((face / PHOTOS).read_text())["photos"]
    assert all(photo["face_share"] > 0.15 and photo["square"][2] < 500 for photo in recorded)
    assert read_image(face / CONTACT_SHEET).width > 256
    train("cut", "train.max_steps=2")
    with pytest.raises(UserError, match=r"data\.crop: 'face' in the checkpoint, 'center' in the config"):
        train("cut", "data.crop=center")
    assert same(face, train("cut"))


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_with_the_center_and_without_captions(train, wide, caplog):
    (wide / "0.txt").write_text("sks person at sea")
    expected = train("expected", "data.crop=center", "data.captions=false")
    old = train("old", "data.crop=center", "data.captions=false", "train.max_steps=2")
    config = yaml.safe_load((old / "config.yaml").read_text())
    del config["data"]["crop"], config["data"]["captions"]
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    assert same(expected, train("old"))
    assert "begun by an earlier version, so it continues with data.crop=center, data.captions=False" in caplog.text
    assert yaml.safe_load((old / "config.yaml").read_text())["data"]["crop"] == "center"
