"""Faces of images with their embeddings; each image is processed once, even if several metrics need it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL.Image import Image

from finetune_monitor.models.faces import Face, FaceFinder
from finetune_monitor.models.recognizers import Embeddings, Recognizer, load_recognizer

Read = TypeVar("Read")


class FaceReader:
    """A detector and a recognizer that several metrics share.

    Args:
        recognizer: an argument or a result of `load_recognizer`.
        device: the device that both run on.

    Raises:
        UserError: the recognizer is not available or cannot be loaded.
    """

    def __init__(self, recognizer: str | Path | Recognizer, device: str | torch.device = "cpu") -> None:
        made = load_recognizer(recognizer, device) if isinstance(recognizer, str | Path) else recognizer
        self.recognizer: Recognizer = made
        self._finder = FaceFinder(device)
        self._faces: _Kept[list[Face]] = _Kept()
        self._all: _Kept[Embeddings] = _Kept()
        self._largest: _Kept[Embeddings] = _Kept()
        self._first: _Kept[Embeddings] = _Kept()
        self._reads_all = False

    @property
    def identity(self) -> dict[str, str]:
        """The description of the recognizer."""
        return {"id": self.recognizer.id, "sha256": self.recognizer.sha256}

    def find(self, images: Sequence[Image]) -> list[list[Face]]:
        """The faces of each RGB image, largest first."""
        return self._faces.get(images, self._finder.find)

    def embed(self, images: Sequence[Image], faces: Sequence[Face]) -> Embeddings:
        """One L2-normalized row for each pair of RGB image and face in it."""
        return self.recognizer.embed(images, faces)

    def embed_first(self, images: Sequence[Image]) -> list[Embeddings]:
        """The embedding of the first face that `find` gives for each RGB image, as one row; no rows without a face."""
        return self._first.get(images, lambda new: self._embedded(new, [faces[:1] for faces in self.find(new)]))

    def expect_all(self) -> None:
        """Announce that a metric reads all faces, so that the largest ones are not looked for separately."""
        self._reads_all = True

    def read(self, images: Sequence[Image]) -> list[Embeddings]:
        """The embeddings of each RGB image's faces, largest face first; no rows if there is no face."""
        return self._all.get(images, lambda new: self._embedded(new, self.find(new)))

    def read_largest(self, images: Sequence[Image]) -> list[Embeddings]:
        """The embedding of each RGB image's largest face, as one row; no rows if there is no face."""
        if self._reads_all:
            return [rows[:1] for rows in self.read(images)]
        return self._largest.get(images, lambda new: self._embedded(new, self._finder.find_largest(new)))

    def _embedded(self, images: Sequence[Image], found: Sequence[Sequence[Face]]) -> list[Embeddings]:
        pairs = [(image, face) for image, faces in zip(images, found, strict=True) for face in faces]
        rows = self.embed([image for image, _ in pairs], [face for _, face in pairs])
        return np.split(rows, np.cumsum([len(faces) for faces in found])[:-1])


class _Kept(Generic[Read]):
    """What was read from images, for as long as the images exist."""

    def __init__(self) -> None:
        self._images: WeakValueDictionary[int, Image] = WeakValueDictionary()
        self._found: dict[int, Read] = {}

    def get(self, images: Sequence[Image], read: Callable[[list[Image]], list[Read]]) -> list[Read]:
        """What each image gives; new images are read now."""
        new = {id(image): image for image in images if id(image) not in self._images}
        self._found = {key: self._found[key] for key in self._images}
        if new:
            self._found.update(zip(new, read(list(new.values())), strict=True))
        self._images.update(new)
        return [self._found[id(image)] for image in images]
