"""Faces of images with their embeddings; each image is processed once, even if several metrics need it."""

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL.Image import Image

from finetune_monitor.models.faces import Face, FaceFinder
from finetune_monitor.models.recognizers import Embeddings, Recognizer, load_recognizer


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
        self._images: WeakValueDictionary[int, Image] = WeakValueDictionary()
        self._known: dict[int, Embeddings] = {}
        self._searched: WeakValueDictionary[int, Image] = WeakValueDictionary()
        self._faces: dict[int, list[Face]] = {}

    @property
    def identity(self) -> dict[str, str]:
        """The description of the recognizer."""
        return {"id": self.recognizer.id, "sha256": self.recognizer.sha256}

    def find(self, images: Sequence[Image]) -> list[list[Face]]:
        """The faces of each RGB image, largest first."""
        new = {id(image): image for image in images if id(image) not in self._searched}
        self._faces = {key: self._faces[key] for key in self._searched}
        self._faces.update(zip(new, self._finder.find(list(new.values())), strict=True))
        self._searched.update(new)
        return [self._faces[id(image)] for image in images]

    def embed(self, images: Sequence[Image], faces: Sequence[Face]) -> Embeddings:
        """One L2-normalized row for each pair of RGB image and face in it."""
        return self.recognizer.embed(images, faces)

    def read(self, images: Sequence[Image]) -> list[Embeddings]:
        """The embeddings of each RGB image's faces, largest face first; no rows if there is no face."""
        new = {id(image): image for image in images if id(image) not in self._images}
        self._known = {key: self._known[key] for key in self._images}
        self._known.update(zip(new, self._read(list(new.values())), strict=True))
        self._images.update(new)
        return [self._known[id(image)] for image in images]

    def _read(self, images: Sequence[Image]) -> list[Embeddings]:
        found = self.find(images)
        pairs = [(image, face) for image, faces in zip(images, found, strict=True) for face in faces]
        rows = self.embed([image for image, _ in pairs], [face for _, face in pairs])
        return np.split(rows, np.cumsum([len(faces) for faces in found])[:-1]) if images else []
