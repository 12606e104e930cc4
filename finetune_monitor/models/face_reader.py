"""Faces of images with their embeddings: each image is looked at once, whichever metric asks."""

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from PIL.Image import Image

from finetune_monitor.models.faces import Face, FaceFinder
from finetune_monitor.models.recognizers import Embeddings, Recognizer, load_recognizer


class FaceReader:
    """A detector and a recognizer for several metrics.

    Args:
        recognizer: as `load_recognizer` takes it, or what it gave.
        device: where both run.

    Raises:
        UserError: the recognizer cannot be had or loaded.
    """

    def __init__(self, recognizer: str | Path | Recognizer, device: str | torch.device = "cpu") -> None:
        made = load_recognizer(recognizer, device) if isinstance(recognizer, str | Path) else recognizer
        self.recognizer: Recognizer = made
        self._finder = FaceFinder(device)
        self._images: WeakValueDictionary[int, Image] = WeakValueDictionary()
        self._known: dict[int, Embeddings] = {}

    @property
    def identity(self) -> dict[str, str]:
        """What a description says of the recognizer."""
        return {"id": self.recognizer.id, "sha256": self.recognizer.sha256}

    def find(self, images: Sequence[Image]) -> list[list[Face]]:
        """The faces of each RGB image, the largest first."""
        return self._finder.find(images)

    def embed(self, images: Sequence[Image], faces: Sequence[Face]) -> Embeddings:
        """One L2-normalized row for each pair of RGB image and face in it."""
        return self.recognizer.embed(images, faces)

    def read(self, images: Sequence[Image]) -> list[Embeddings]:
        """The embeddings of each RGB image's faces, the largest face first; no row where there is no face."""
        new = {id(image): image for image in images if id(image) not in self._images}
        self._known = {key: self._known[key] for key in self._images}
        self._known.update(zip(new, self._read(list(new.values())), strict=True))
        self._images.update(new)
        return [self._known[id(image)] for image in images]

    def _read(self, images: Sequence[Image]) -> list[Embeddings]:
        found = self._finder.find(images)
        pairs = [(image, face) for image, faces in zip(images, found, strict=True) for face in faces]
        rows = self.embed([image for image, _ in pairs], [face for _, face in pairs])
        return np.split(rows, np.cumsum([len(faces) for faces in found])[:-1]) if images else []
