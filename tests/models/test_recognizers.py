"""Recognizers turn faces into vectors of length 1; what cannot be had or is no recognizer is said before training."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from onnx import TensorProto
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.models import weights
from finetune_monitor.models.faces import ARCFACE_TEMPLATE, Face, FaceFinder
from finetune_monitor.models.recognizers import BY_NAME, InceptionResnet, OnnxRecognizer, Recognizer, load_recognizer
from support.places import DEMO
from support.recognizers import CLASSIFIER, MAP, save_onnx

DEMO_PHOTOS = DEMO / "photos/astronaut"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Empty caches, and publishers that do not answer."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(tmp_path / "cache"))
    for name, file in weights.RECOGNIZERS.items():
        monkeypatch.setitem(weights.RECOGNIZERS, name, replace(file, url=f"{NOWHERE}/{file.filename}"))
    return tmp_path / "cache"


# --- by name ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_every_name_loads_or_says_at_once_how_it_can_be_had(name, cache):
    began = time.monotonic()
    if name not in weights.RECOGNIZERS:
        assert isinstance(load_recognizer(name), Recognizer)
        return
    with pytest.raises(UserError) as caught:
        load_recognizer(name)
    assert time.monotonic() - began < weights.PROBE_SECONDS + 2
    file = weights.RECOGNIZERS[name]
    for part in (file.url, f"put it at: {cache / file.filename}", "without a download: recognizer: dlib"):
        assert part in str(caught.value)


def test_an_unknown_recognizer_is_refused():
    names = "vggface2, casia-webface, dlib, sface"
    with pytest.raises(UserError, match=f"found 'vggface', expected {names} or the path"):
        load_recognizer("vggface")


def cached_sface(cache: Path, monkeypatch) -> Path:
    """A stand-in for SFace in the cache, one face at a time like the real one, its hash the expected one."""
    cache.mkdir()
    file = save_onnx(cache / weights.RECOGNIZERS["sface"].filename, (1, 3, 112, 112))
    monkeypatch.setitem(weights.RECOGNIZERS, "sface", replace(weights.RECOGNIZERS["sface"], sha256=sha256(file)))
    return file


def test_sface_sees_rgb_from_0_to_255(cache, monkeypatch):
    file = cached_sface(cache, monkeypatch)
    recognizer = load_recognizer("sface")
    assert (recognizer.id, recognizer.sha256, recognizer.notice) == ("sface", sha256(file), "")
    colors = [(200, 100, 50), (10, 250, 90)]
    images, faces = zip(*(painted(*color) for color in colors), strict=True)
    expected = np.array(colors) * [1, 2, 3]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(recognizer.embed(images, faces), expected, atol=1e-5)
    assert recognizer.embed([], []).shape == (0, 3)


def test_another_file_in_the_place_of_sface_is_refused(cache):
    cache.mkdir()
    save_onnx(cache / weights.RECOGNIZERS["sface"].filename)
    with pytest.raises(UserError, match=r"2021dec\.onnx: not the face recognizer SFace .* found sha256 .* delete it"):
        load_recognizer("sface")


def test_without_onnxruntime_nothing_is_downloaded_for_sface(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'recognizer: sface: .*pip install "finetune_monitor\[onnx\]"'):
        load_recognizer("sface")
    assert not cache.exists()


# --- InceptionResnetV1 --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> InceptionResnetV1:
    """The network at full size with random weights and its classifier, as in facenet-pytorch's files."""
    torch.manual_seed(0)
    return InceptionResnetV1(pretrained=None, classify=True, num_classes=8631).eval()


def cache_weights(tmp_path: Path, monkeypatch, state: dict[str, torch.Tensor]) -> Path:
    """Put weights where facenet-pytorch caches its own, and make their hash the expected one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "torch/checkpoints/20180402-114759-vggface2.pt"
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    pinned = replace(weights.RECOGNIZERS["vggface2"], sha256=sha256(file))
    monkeypatch.setitem(weights.RECOGNIZERS, "vggface2", pinned)
    return file


@pytest.mark.slow
def test_building_networks_leaves_the_random_state_alone(tmp_path, monkeypatch, network):
    cache_weights(tmp_path, monkeypatch, network.state_dict())
    torch.manual_seed(3)
    FaceFinder()
    InceptionResnet("vggface2")
    load_recognizer("dlib")
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))


@pytest.mark.slow
def test_vggface2_agrees_with_the_documented_use_of_the_library(tmp_path, monkeypatch, finder, photo, network):
    file = cache_weights(tmp_path, monkeypatch, network.state_dict())
    canvas = Image.new("RGB", (700, 512))
    canvas.paste(photo, (0, 0))
    canvas.paste(photo.resize((200, 200)), (500, 250))
    images = [photo.crop((0, 0, 400, 400)), photo.crop((100, 0, 350, 300)), photo.rotate(10), canvas, photo]
    images += [Image.open(file).convert("RGB").resize((512, 512)) for file in sorted(DEMO_PHOTOS.iterdir())]
    recognizer = load_recognizer("vggface2")
    found = recognizer.embed(images, [faces[0] for faces in finder.find(images)])

    mtcnn = MTCNN(image_size=160, margin=14)
    network.classify = False
    expected = [network(mtcnn(image).unsqueeze(0)).detach().numpy()[0] for image in images]
    assert found.shape == (11, 512)
    assert np.abs(found - np.stack(expected)).max() < 1e-4
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (recognizer.id, recognizer.sha256, recognizer.notice) == ("vggface2", sha256(file), "")
    assert recognizer.embed([], []).shape == (0, 512)


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    cache_weights(tmp_path, monkeypatch, {"layers.0.weight": torch.zeros(1, 4)})
    with pytest.raises(UserError, match=r"vggface2\.pt: not the weights of InceptionResnetV1"):
        load_recognizer("vggface2")


# --- ONNX ---------------------------------------------------------------------------------------------------------


def painted(red: int, green: int, blue: int) -> tuple[Image.Image, Face]:
    """An image of one color, and a face in it whose landmarks lie where the template has them."""
    return Image.new("RGB", (112, 112), (red, green, blue)), Face(np.array([0.0, 0, 112, 112]), ARCFACE_TEMPLATE, 1.0)


@pytest.mark.parametrize(
    ("metadata", "mean", "std"), [({}, 127.5, 127.5), ({"mean": "0", "std": "255", "notice": "demo"}, 0, 255)]
)
@pytest.mark.parametrize("batch", ["n", 1])
def test_an_onnx_recognizer_sees_rgb_in_its_own_scale(tmp_path, metadata, mean, std, batch):
    recognizer = load_recognizer(save_onnx(tmp_path / "r.onnx", (batch, 3, 8, 8), metadata))
    colors = [(200, 100, 50), (10, 250, 90)]
    images, faces = zip(*(painted(*color) for color in colors), strict=True)
    by_hand = (np.array(colors) - mean) / std * [1, 2, 3]
    expected = by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True)
    assert np.allclose(recognizer.embed(images, faces), expected, atol=1e-5)
    assert recognizer.notice == metadata.get("notice", "")
    assert recognizer.sha256 == sha256(tmp_path / "r.onnx")


@pytest.mark.parametrize("shape", [("n", 3, 24, 24), ("n", 3, "h", "w")])
def test_the_crop_has_the_size_that_the_network_takes(tmp_path, shape):
    recognizer = OnnxRecognizer(save_onnx(tmp_path / "r.onnx", shape))
    image, face = painted(255, 255, 255)
    half = Face(face.box, ARCFACE_TEMPLATE / 2 + [56, 0], 1.0)  # a face half as large at the upper right
    image.paste("black", (0, 0, 56, 112))
    image.paste("black", (0, 56, 112, 112))
    assert np.allclose(recognizer.embed([image], [half])[0], np.array([1, 2, 3]) / np.sqrt(14), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("nhwc.onnx", {"shape": ("n", 8, 8, 3), "nodes": MAP}, r"expected one, tensor\(float\) \[n, 3, size, size\]"),
        ("oblong.onnx", {"shape": ("n", 3, 8, 16)}, "expected one"),
        ("gray.onnx", {"shape": ("n", 1, 8, 8), "nodes": MAP}, r"\['n', 1, 8, 8\]; expected one"),
        ("double.onnx", {"kind": TensorProto.DOUBLE, "nodes": MAP}, "cannot load it|expected one"),
        ("map.onnx", {"nodes": MAP}, r"shape \(1, 3, 1, 1\); expected 1 rows .* is this a face recognizer\?"),
        ("classifier.onnx", {"nodes": CLASSIFIER}, r"3 probabilities, as from a classifier; .* recognizer: dlib needs"),
        ("four.onnx", {"shape": (4, 3, 8, 8)}, r"four\.onnx: fails on faces of 8 pixels (?s:.*) recognizer\?"),
        ("mean.onnx", {"metadata": {"mean": "gray"}}, "mean='gray' in its metadata, expected a number"),
    ],
)
def test_other_onnx_networks_are_refused_when_they_are_loaded(tmp_path, name, options, reason):
    with pytest.raises(UserError, match=reason):
        load_recognizer(save_onnx(tmp_path / name, **options))


@pytest.mark.parametrize("content", [b"", b"no network", b"To be written: a recognizer.\n" * 99, bytes(range(256))])
def test_a_file_that_is_no_onnx_is_refused(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.onnx: cannot load it as an ONNX model .* is this a face"):
        load_recognizer(tmp_path / "broken.onnx")


def test_without_onnxruntime_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'pip install "finetune_monitor\[onnx\]"'):
        load_recognizer(save_onnx(tmp_path / "r.onnx"))
