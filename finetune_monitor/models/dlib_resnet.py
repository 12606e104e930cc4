"""dlib's face recognizer as a torch module: a ResNet with 29 convolutions that maps a face to 128 numbers."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("dlib_resnet.safetensors")
"""Made by assets/recognizers/dlib, which also has the model card. Stored in half precision, run in single precision."""

MEAN_COLOR = (122.782, 117.001, 104.298)
"""The RGB mean that dlib's `input_rgb_image_sized` subtracts before it divides by 256."""

BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), *[(64, False)] * 3],
    *[(128, True), *[(128, False)] * 2],
    *[(256, True), *[(256, False)] * 2],
    (256, True),
)
"""The channels of each residual block, and whether it halves the resolution."""


class DlibResnet(nn.Module):
    """`dlib_face_recognition_resnet_model_v1` (King 2017), with affine layers folded into the preceding convolutions.

    others: the mean descriptor of other people; identity is the direction of a descriptor relative to that mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 7, stride=2)
        inputs = [32, *(channels for channels, _ in BLOCKS)]
        self.blocks = nn.Sequential(*(_Block(i, *block) for i, block in zip(inputs, BLOCKS, strict=False)))
        self.last = nn.Linear(256, 128, bias=False)
        self.others: Tensor
        self.register_buffer("others", torch.zeros(128))

    def forward(self, chips: Float[Tensor, "n 3 150 150"]) -> Float[Tensor, "n 128"]:
        """The descriptors of dlib's `compute_face_descriptor` for aligned faces in RGB, 0 to 255."""
        x = (chips - chips.new_tensor(MEAN_COLOR)[:, None, None]) / 256
        x = F.max_pool2d(F.relu(self.first(x)), 3, stride=2)
        found: Tensor = self.last(self.blocks(x).mean(dim=(2, 3)))
        return found

    def embed(self, chips: Float[Tensor, "n 3 150 150"]) -> Float[Tensor, "n 128"]:
        """Unit-length descriptors relative to the mean of other people, so that their cosine distinguishes people."""
        return F.normalize(self(chips) - self.others)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        stride, padding = (2, 0) if halves else (1, 1)
        self.halves = halves
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        found = self.conv2(F.relu(self.conv1(x)))
        around = F.avg_pool2d(x, 2) if self.halves else x
        size = [max(pair) for pair in zip(found.shape, around.shape, strict=True)]
        return F.relu(_enlarged(found, size) + _enlarged(around, size))


def _enlarged(x: Tensor, size: list[int]) -> Tensor:
    """Zero-padded channels, rows, and columns: dlib adds tensors of different sizes this way."""
    channels, height, width = (wanted - has for wanted, has in zip(size[1:], x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels))


def load_dlib_resnet(path: Path = WEIGHTS) -> DlibResnet:
    """The network with its weights in single precision, on the CPU; leaves torch's random state unchanged."""
    with torch.device("meta"):
        network = DlibResnet()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, assign=True)
    return network.eval().requires_grad_(False)
