"""Heads, recognizers, encoders and thresholds with numbers that are not finite: refused at the start, by name."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import resnet50

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics.aesthetic_head import AestheticHead, read_head, scale_of
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.metrics.thresholds import read_thresholds
from finetune_monitor.models import dlib_resnet, recognizers
from finetune_monitor.models.clip import ClipEncoder
from finetune_monitor.models.defaults import SCALE
from finetune_monitor.models.dino import DinoEncoder
from finetune_monitor.models.recognizers import OnnxRecognizer
from finetune_monitor.models.sscd import SscdEncoder
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.dino import write_dino
from support.heads import METADATA, WIDTH, write_clip, write_head
from support.recognizers import save_onnx

WRONG = [math.nan, math.inf, -math.inf]


def spoil(file: Path, value: float, metadata: dict[str, str] | None = None) -> Path:
    """The same file with one number replaced in its last tensor of floats."""
    state = load_file(file)
    name = [name for name, tensor in state.items() if tensor.is_floating_point()][-1]
    state[name].view(-1)[-1] = value
    save_file(state, file, metadata)
    return file


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_head_with_one_wrong_weight_is_refused(suffix, value, tmp_path):
    file = tmp_path / f"head{suffix}"
    state = AestheticHead((WIDTH, 5, 1), "relu").state_dict()
    state["layers.1.weight"][0, 2] = value
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file, METADATA)
    with pytest.raises(UserError, match=rf"head{suffix}: found 1 of 5 values of layers.1.weight that are not finite"):
        read_head(file)


def test_a_head_whose_outputs_overflow_is_refused(tmp_path):
    state = {name: torch.full_like(tensor, 1e30) for name, tensor in AestheticHead((WIDTH, 5, 1)).state_dict().items()}
    save_file(state, tmp_path / "head.safetensors", METADATA)
    with pytest.raises(UserError, match=r"head\.safetensors: returns values that are not finite"):
        read_head(tmp_path / "head.safetensors")


@pytest.mark.parametrize("grades", ["[1, NaN]", "[1, Infinity]", "[1, 1e999]", "[1, {}]", "3", f"[1, {10**400}]"])
def test_a_head_with_wrong_grades_is_refused(grades, tmp_path):
    write_head(tmp_path / "head.safetensors", metadata={**METADATA, "grades": grades})
    with pytest.raises(UserError, match="in its metadata, expected a list of numbers"):
        read_head(tmp_path / "head.safetensors")


@pytest.mark.parametrize("scale", ["nan..10", "0..inf", "10..1", "-inf..inf"])
def test_a_scale_that_is_none_is_not_used(scale):
    assert scale_of({"scale": scale}) == SCALE


@pytest.mark.slow
@pytest.mark.parametrize("value", WRONG)
def test_encoders_with_one_wrong_weight_are_refused(value, tmp_path):
    clip = write_clip(tmp_path)
    spoil(tmp_path / "open_clip_model.safetensors", value)
    with pytest.raises(UserError, match=r"open_clip_model\.safetensors: found 1 of .* that are not finite"):
        ClipEncoder(str(clip), None)
    (tmp_path / "dino").mkdir()
    dino = write_dino(tmp_path / "dino")
    spoil(dino / "model.safetensors", value, {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors: found 1 of .* that are not finite"):
        DinoEncoder(str(dino))
    torch.manual_seed(0)
    save_file(resnet50(num_classes=512).state_dict(), tmp_path / "sscd.safetensors")
    spoil(tmp_path / "sscd.safetensors", value)
    with pytest.raises(UserError, match=r"sscd\.safetensors: found 1 of .* that are not finite"):
        SscdEncoder(str(tmp_path / "sscd.safetensors"))


def test_a_clip_that_normalizes_with_nan_is_refused(tmp_path):
    write_clip(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"][0] = math.nan
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="returns values that are not finite"):
        ClipEncoder(str(tmp_path), None)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mean": "nan"}, "found mean='nan' in its metadata, expected a number"),
        ({"std": "inf"}, "found std='inf' in its metadata"),
        ({"std": "0"}, "found std=0 in its metadata"),
    ],
)
def test_a_recognizer_with_a_wrong_scale_is_refused(metadata, message, tmp_path):
    with pytest.raises(UserError, match=message):
        OnnxRecognizer(save_onnx(tmp_path / "recognizer.onnx", metadata=metadata))


class NotFinite:
    """A recognizer of the user's own."""

    id, sha256, notice = "mine", "0" * 64, ""

    def embed(self, images, faces):
        return np.full((len(images), 4), np.nan, dtype=np.float32)


def test_a_recognizer_whose_vectors_are_not_finite_is_refused():
    from skimage.data import astronaut

    from finetune_monitor.models.face_reader import FaceReader

    with pytest.raises(UserError, match="recognizer mine: returns values that are not finite"):
        FaceSimilarity([Image.fromarray(astronaut()).crop((80, 0, 380, 300))], FaceReader(NotFinite()))


@pytest.mark.parametrize("value", WRONG)
def test_a_downloaded_recognizer_with_one_wrong_weight_is_refused(value, tmp_path, monkeypatch):
    spoiled = load_file(dlib_resnet.WEIGHTS)
    spoiled["last.weight"].view(-1)[0] = value
    save_file(spoiled, tmp_path / "vggface2.safetensors")
    monkeypatch.setattr(recognizers, "find_weights", lambda source: tmp_path / "vggface2.safetensors")
    with pytest.raises(UserError, match=r"vggface2\.safetensors: found 1 of .* values of last.weight"):
        recognizers.load_recognizer("vggface2")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "{}", '"0.5"', "true", str(10**400)])
@pytest.mark.parametrize("key", ["thresholds", "cost", "power"])
def test_thresholds_that_are_not_finite_are_refused(key, value, tmp_path):
    row = {"thresholds": "[0.1, 0.2, 0.3, 0.4]", "empty_below": "0", "cost": "1.0", "method": '"least_cost"'}
    row |= {"power": "2.0", "labelers": "3", "images": "9", "labels": "9", "weights": "null"}
    row[key] = f"[0.1, {value}, 0.3, 0.4]" if key == "thresholds" else value
    content = ", ".join(f'"{name}": {text}' for name, text in row.items())
    (tmp_path / "thresholds.json").write_text(f'{{"format": 1, "metrics": {{"aesthetic": {{{content}}}}}}}')
    with pytest.raises(UserError, match=rf"thresholds\.json: .*(?s:.)*{key}"):
        read_thresholds(tmp_path / "thresholds.json")


def test_a_training_does_not_start_with_such_a_head(write_config, tmp_path):
    clip = write_clip(tmp_path)
    head = spoil(write_head(tmp_path / "head.safetensors"), math.nan, METADATA)
    metrics = f"monitor.metrics.aesthetic={{clip: {clip}, head: {head}}}"
    with pytest.raises(UserError, match=r"the run cannot start:(?s:.*)head\.safetensors: found 1 of"):
        run(load_config(write_config(), [metrics, f"output_dir={tmp_path / 'run'}"]))
