"""The port of dlib's recognizer gives dlib's own numbers, and tells people apart."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from skimage.data import astronaut
from torch import nn

from dat_file import read_layers
from finetune_monitor.base.files import sha256
from finetune_monitor.models.dlib_resnet import WEIGHTS, DlibResnet, load_dlib_resnet
from finetune_monitor.models.faces import FaceFinder, dlib_crop
from finetune_monitor.models.recognizers import load_recognizer
from make_weights import SHA256, fold, network_from
from separation import SMALL, labeled_photos, separation
from support import needs
from support.places import ROOT, SHARED

CARD = ROOT / "assets/recognizers/dlib/README.md"
ASTRONAUT, LENGTH = [-0.0786, 0.0348, -0.0102, -0.0494, -0.1701, 0.0116, -0.007, -0.1259], 1.4778
"""What dlib itself says of the same chip, printed by assets/recognizers/dlib/make_weights.py."""


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(astronaut())


@pytest.fixture(scope="module")
def chip(photo) -> np.ndarray:
    return dlib_crop(photo, FaceFinder().find([photo])[0][0])


def described(chip: np.ndarray) -> torch.Tensor:
    return load_dlib_resnet()(torch.from_numpy(chip).permute(2, 0, 1)[None])[0]


def test_a_descriptor_is_dlibs_own(chip):
    found = described(chip)
    assert found[: len(ASTRONAUT)].tolist() == pytest.approx(ASTRONAUT, abs=1e-3)
    assert float(found.norm()) == pytest.approx(LENGTH, abs=2e-3)


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:, :, ::-1], lambda x: x[:, ::-1], lambda x: x * 0.98],
    ids=["colors swapped", "mirrored", "darker"],
)
def test_the_golden_numbers_notice_a_change(chip, change):
    assert described(change(chip).copy())[: len(ASTRONAUT)].tolist() != pytest.approx(ASTRONAUT, abs=1e-3)


def test_an_embedding_is_centered_and_has_length_1(photo, chip):
    recognizer, network = load_recognizer("dlib"), load_dlib_resnet()
    (face,) = FaceFinder().find([photo])[0]
    found = recognizer.embed([photo] * 20, [face] * 20)  # more than a batch
    expected = described(chip) - network.others
    assert np.allclose(found, (expected / expected.norm()).numpy(), atol=1e-5)
    assert found.dtype == np.float32
    assert float(network.others.norm()) > 1  # plain descriptors all lie on one side
    assert recognizer.embed([], []).shape == (0, 128)
    assert (recognizer.id, recognizer.sha256, recognizer.notice) == ("dlib", sha256(WEIGHTS), "")


@needs.gpu
def test_on_a_gpu_an_embedding_is_the_same(photo):
    faces = FaceFinder().find([photo])[0]
    on_cpu, on_gpu = (load_recognizer("dlib", device).embed([photo], faces) for device in ("cpu", "cuda"))
    assert np.allclose(on_cpu, on_gpu, atol=5e-3)


@pytest.mark.slow
@needs.shared("faces")
@needs.shared("portraits")
@pytest.mark.parametrize("side", [None, SMALL])
def test_people_are_told_apart(side):
    photos = labeled_photos(SHARED / "faces/face_recognition", SHARED / "portraits", side)
    found = separation(load_recognizer("dlib"), photos)
    assert (len(found.same), len(found.different)) >= (20, 10_000)
    assert found.auc > 0.99
    assert np.median(found.different) == pytest.approx(0, abs=0.1)


# --- its file -----------------------------------------------------------------------------------------------------


def integer(number: int) -> bytes:
    """As dlib serializes one."""
    size = abs(number)
    count = (size.bit_length() + 7) // 8 or 1
    return bytes([count | (0x80 if number < 0 else 0)]) + size.to_bytes(count, "little")


def layer(name: str, *integers: int, numbers: np.ndarray) -> bytes:
    shape = (numbers.size, 1, 1, 1)
    head = b"".join(map(integer, (len(name),))) + name.encode() + b"".join(map(integer, (*integers, 2, *shape)))
    return head + numbers.astype("<f4").tobytes()


def test_a_serialized_network_is_read():
    numbers = [np.arange(300.0), np.array([1.5, -2.0]), np.arange(6.0)]
    content = b"\x01\x01" + layer("con_4", numbers=numbers[0]) + integer(-300) + integer(7)
    content += layer("affine_", numbers=numbers[1]) + b"\x00\x00"
    content += layer("fc_2", 3, 2, numbers=numbers[2]) + integer(0)
    layers = read_layers(content)
    assert [found.name for found in layers] == ["con_4", "affine_", "fc_2"]
    assert all(np.array_equal(found.numbers, wanted) for found, wanted in zip(layers, numbers, strict=True))
    with pytest.raises(ValueError, match=r"found the end of the file, expected 24 more bytes"):
        read_layers(content[:-10])
    with pytest.raises(ValueError, match=r"found version 9, expected a tensor of version 2"):
        read_layers(content.replace(b"con_4\x01\x02", b"con_4\x01\x09"))


def test_a_folded_convolution_does_what_both_layers_did():
    torch.manual_seed(0)
    plain, folded, x = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    gamma, beta = torch.randn(2, 4)
    both = torch.cat([plain.weight.flatten(), plain.bias]).detach()
    weight, bias = fold(both, torch.cat([gamma, beta]), plain.weight.shape)
    folded.load_state_dict({"weight": weight, "bias": bias})
    assert torch.allclose(folded(x), plain(x) * gamma[:, None, None] + beta[:, None, None], atol=1e-5)


@pytest.mark.slow
def test_a_whole_file_fills_the_whole_network():
    shapes = [m.weight.shape for m in DlibResnet().modules() if isinstance(m, nn.Conv2d)]
    content = b""
    for shape in shapes:
        content += layer("con_4", numbers=np.zeros(shape.numel() + shape[0]))
        content += layer("affine_", numbers=np.repeat([1.0, 0.25], shape[0]))
    content += layer("fc_2", 128, 256, numbers=np.eye(256, 128).ravel())
    network = network_from(read_layers(content))
    assert len(shapes) == 29
    assert all(bool((bias == 0.25).all()) for name, bias in network.named_parameters() if name.endswith("bias"))
    assert network(torch.zeros(1, 3, 150, 150)).shape == (1, 128)


def test_the_weights_are_those_of_the_model_card():
    card = CARD.read_text()
    assert sha256(WEIGHTS) in card
    assert SHA256 in card
    with safe_open(WEIGHTS, "pt") as file:
        assert "public domain" in file.metadata()["license"]
        assert SHA256 in file.metadata()["source"]
        kinds = {file.get_tensor(name).dtype for name in file.keys() if name.endswith("weight")}  # noqa: SIM118
    assert kinds == {torch.float16}
