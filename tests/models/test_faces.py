"""Faces are found in real photos, cut out as the recognizers expect, and embedded."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from PIL import Image
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, warp

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.models import weights
from finetune_monitor.models.faces import (
    ARCFACE_TEMPLATE,
    Face,
    FaceFinder,
    arcface_crop,
    detection_size,
    facenet_crop,
    similarity_transform,
)
from finetune_monitor.models.recognizers import InceptionResnet, OnnxRecognizer, load_recognizer
from support import needs
from support.places import DEMO, SHARED

PEOPLE = SHARED / "faces/face_recognition/examples"
DEMO_PHOTOS = DEMO / "photos/astronaut"
FACE_AT = (175, 60, 275, 175)  # the astronaut's face, by eye


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(astronaut())


@pytest.fixture(scope="module")
def face(finder, photo) -> Face:
    return finder.find([photo])[0][0]


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(areas) - both)


def test_a_face_is_found_with_its_landmarks(face):
    assert overlap(face.box, FACE_AT) > 0.7
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert face.probability > 0.99


@pytest.mark.parametrize("side", [64, 96])
def test_boxes_of_small_images_are_in_their_own_pixels(finder, photo, face, side):
    box = (100, 20, 356, 276)
    (small,) = finder.find([photo.crop(box).resize((side, side), Image.Resampling.LANCZOS)])[0]
    back = small.landmarks * (256 / side) + box[:2]
    assert np.abs(back - face.landmarks).max() < 8
    assert overlap(small.box * (256 / side) + np.tile(box[:2], 2), face.box) > 0.75


def test_images_of_all_sizes_in_one_call(finder, photo, face):
    blank, tiny = Image.new("RGB", (512, 512), "gray"), Image.new("RGB", (8, 300))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    half = photo.resize((256, 256))
    found = finder.find([blank, photo, tiny, half, noise, Image.new("RGB", (1, 1)), Image.new("RGB", (13, 2000))])
    assert [len(faces) for faces in found] == [0, 1, 0, 1, 0, 0, 0]
    assert np.allclose(found[1][0].landmarks, face.landmarks, atol=0.1)
    assert np.allclose(found[3][0].landmarks * 2, face.landmarks, atol=4)
    assert finder.find([]) == []


def test_the_largest_face_comes_first(finder, photo):
    canvas = Image.new("RGB", (700, 512))
    canvas.paste(photo.crop((100, 0, 356, 256)).resize((160, 160)), (0, 100))
    canvas.paste(photo.crop((100, 0, 356, 256)).resize((400, 400)), (250, 50))
    faces = finder.find([canvas])[0]
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box[0] > 250 > faces[1].box[0]


@needs.shared("faces")
@pytest.mark.parametrize(("name", "count"), [("two_people.jpg", 2), ("biden.jpg", 1), ("obama-1080p.jpg", 1)])
def test_people_are_counted(finder, name, count):
    assert len(finder.find([Image.open(PEOPLE / name).convert("RGB")])[0]) == count


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)),
        ((64, 64), (192, 192)),
        ((64, 128), (192, 384)),
        ((4000, 3000), (1600, 1200)),
        ((16, 16), (128, 128)),
    ],
)
def test_size_for_detection(size, expected):
    assert detection_size(size) == expected


def test_building_networks_leaves_the_random_state_alone(tmp_path, monkeypatch, network):
    cache_weights(tmp_path, monkeypatch, network.state_dict())
    torch.manual_seed(3)
    FaceFinder()
    InceptionResnet("vggface2")
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))


# --- crops --------------------------------------------------------------------------------------------------------


def test_facenet_crop_is_that_of_the_library(photo, face):
    expected = MTCNN(image_size=160, margin=14, post_process=True)(photo)
    assert torch.equal(facenet_crop(photo, face), expected)


def test_similarity_transform_undoes_a_known_one():
    known = SimilarityTransform(scale=0.4, rotation=0.3, translation=(12, -7))
    found = similarity_transform(ARCFACE_TEMPLATE, known(ARCFACE_TEMPLATE))
    assert np.allclose(found, known.params)


def estimated(source: np.ndarray, target: np.ndarray) -> SimilarityTransform:
    if hasattr(SimilarityTransform, "from_estimate"):
        return SimilarityTransform.from_estimate(source, target)
    found = SimilarityTransform()  # scikit-image before 0.26
    assert found.estimate(source, target)
    return found


def test_similarity_transform_of_noisy_points_agrees_with_scikit_image():
    source = np.random.default_rng(0).normal(0, 30, (5, 2)) + 50
    expected = estimated(source, ARCFACE_TEMPLATE)
    assert np.allclose(similarity_transform(source, ARCFACE_TEMPLATE), expected.params)


@pytest.mark.parametrize(
    ("size", "scale", "turn"), [(112, 1.3, 0.0), (112, 3.5, 0.5), (56, 1.7, -1.2), (112, 0.6, 3.1)]
)
def test_arcface_crop_puts_the_landmarks_on_the_template(size, scale, turn):
    place = SimilarityTransform(scale=scale, rotation=turn, translation=(400, 420))
    landmarks = place(ARCFACE_TEMPLATE)
    x, y = np.meshgrid(np.arange(900) + 0.5, np.arange(900) + 0.5)
    for index, (dot_x, dot_y) in enumerate(landmarks):
        dot = 255 * np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * (3 * scale) ** 2))
        image = Image.fromarray(np.repeat(dot[:, :, None].astype(np.uint8), 3, axis=2))
        crop = arcface_crop(image, Face(np.array([0.0, 0, 900, 900]), landmarks, 1.0), size)[:, :, 0]
        middle = [(crop.sum(axis=axis) * (np.arange(size) + 0.5)).sum() / crop.sum() for axis in (0, 1)]
        assert crop.shape == (size, size)
        assert np.abs(np.array(middle) - ARCFACE_TEMPLATE[index] * (size / 112)).max() < 0.2


def test_arcface_crop_agrees_with_scikit_image(photo, face):
    to_template = estimated(face.landmarks - 0.5, ARCFACE_TEMPLATE - 0.5)
    expected = warp(np.asarray(photo), to_template.inverse, output_shape=(112, 112), order=3, preserve_range=True)
    assert np.abs(arcface_crop(photo, face) - expected).mean() < 2.5  # gray levels; theirs is not averaged


def test_a_large_face_does_not_alias():
    stripes = np.zeros((1200, 1200, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    large = Face(np.array([0.0, 0, 1200, 1200]), ARCFACE_TEMPLATE * 10, 1.0)
    crop = arcface_crop(Image.fromarray(stripes), large)[5:-5, 5:-5]
    assert crop.std() < 8
    assert abs(crop.mean() - 127.5) < 2


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


def save_onnx(path: Path, shape=("n", 3, 8, 8), metadata: dict[str, str] | None = None, vectors: bool = True) -> Path:
    """A recognizer whose vector is the mean of each channel times (1, 2, 3); without `vectors` it ends in a map."""
    from onnx import TensorProto, helper, numpy_helper

    scale = numpy_helper.from_array(np.diag([1, 2, 3]).astype(np.float32), "scale")
    nodes = [
        helper.make_node("GlobalAveragePool", ["faces"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "scale"], ["vectors"]),
    ][: 3 if vectors else 1]
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    faces = helper.make_tensor_value_info("faces", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "recognizer", [faces], [output], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


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


@pytest.mark.parametrize(("shape", "size"), [(("n", 3, 24, 24), 24), (("n", 3, "h", "w"), 112)])
def test_the_crop_has_the_size_that_the_network_takes(tmp_path, shape, size):
    recognizer = OnnxRecognizer(save_onnx(tmp_path / "r.onnx", shape))
    image, face = painted(255, 255, 255)
    half = Face(face.box, ARCFACE_TEMPLATE / 2 + [56, 0], 1.0)  # a face half as large at the upper right
    image.paste("black", (0, 0, 56, 112))
    image.paste("black", (0, 56, 112, 112))
    assert recognizer._size == size
    assert np.allclose(recognizer.embed([image], [half])[0], np.array([1, 2, 3]) / np.sqrt(14), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        (
            "nhwc.onnx",
            {"shape": ("n", 8, 8, 3), "vectors": False},
            r"expected one, tensor\(float\) \[n, 3, size, size\]",
        ),
        ("oblong.onnx", {"shape": ("n", 3, 8, 16)}, "expected one"),
        ("map.onnx", {"vectors": False}, r"shape \(1, 3, 1, 1\); expected 1 rows"),
        ("mean.onnx", {"metadata": {"mean": "gray"}}, "mean='gray', expected a number"),
    ],
)
def test_other_onnx_networks_are_refused(tmp_path, name, options, reason):
    image, face = painted(1, 2, 3)
    with pytest.raises(UserError, match=reason):
        OnnxRecognizer(save_onnx(tmp_path / name, **options)).embed([image], [face])


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"broken\.onnx: cannot be loaded"):
        load_recognizer(tmp_path / "broken.onnx")


def test_without_onnxruntime_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'pip install "finetune_monitor\[onnx\]"'):
        load_recognizer(save_onnx(tmp_path / "r.onnx"))


def test_an_unknown_recognizer_is_refused():
    with pytest.raises(UserError, match="found 'vggface', expected vggface2, casia-webface or the path"):
        load_recognizer("vggface")
