"""Reads the layers of a network that dlib has serialized, without dlib."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NAMES = {"con_4": 0, "affine_": 0, "fc_2": 2}
"""Layers that have weights, and how many integers stand between the name and the tensor."""

TENSOR = 2
"""The version with which a tensor begins."""


@dataclass(frozen=True)
class Layer:
    """The name of a layer and its numbers, in the order of the file."""

    name: str
    numbers: np.ndarray


@dataclass
class Stream:
    """dlib's integers, texts and tensors, one after the other."""

    content: bytes
    place: int = 0

    def take(self, count: int) -> bytes:
        taken = self.content[self.place : self.place + count]
        if len(taken) != count:
            raise ValueError(f"byte {self.place}: found the end of the file, expected {count} more bytes")
        self.place += count
        return taken

    def integer(self) -> int:
        """The low four bits of its first byte say how many bytes follow, little-endian; the highest is the sign."""
        head = self.take(1)[0]
        size = int.from_bytes(self.take(head & 0x0F), "little")
        return -size if head & 0x80 else size

    def tensor(self) -> np.ndarray:
        """Flat: dlib keeps the filters and the biases of a convolution in one column."""
        at = self.place
        version, *sizes = (self.integer() for _ in range(5))
        if version != TENSOR:
            raise ValueError(f"byte {at}: found version {version}, expected a tensor of version {TENSOR}")
        return np.frombuffer(self.take(4 * math.prod(sizes)), "<f4")


def read_layers(content: bytes) -> list[Layer]:
    """The layers that have weights, from the input on."""
    stream, layers = Stream(content), []
    while found := _next_name(stream):
        for _ in range(NAMES[found]):
            stream.integer()
        layers.append(Layer(found, stream.tensor()))
    return layers


def _next_name(stream: Stream) -> str | None:
    """Goes behind the next name of a layer; what is between layers (training state, sizes) is passed over."""
    places = {}
    for name in NAMES:
        serialized = bytes([1, len(name)]) + name.encode()
        at = stream.content.find(serialized, stream.place)
        if at >= 0:
            places[at] = (name, at + len(serialized))
    if not places:
        return None
    name, stream.place = places[min(places)]
    return name
