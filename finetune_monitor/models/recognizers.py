"""Face recognizers: from aligned crops to unit-length embeddings."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1
from jaxtyping import Float
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import require
from finetune_monitor.base.files import sha256
from finetune_monitor.base.paths import user_path
from finetune_monitor.models.dlib_resnet import WEIGHTS, load_dlib_resnet
from finetune_monitor.models.faces import ARCFACE_SIZE, Face, arcface_crop, dlib_crop, facenet_crop
from finetune_monitor.models.weights import RECOGNIZERS, find_weights, read_state_dict, undisturbed_rng

Embeddings = Float[np.ndarray, "n d"]
"""One L2-normalized row per face."""

BATCH = 16
"""Crops per forward pass of the recognizer."""

SFACE_SCALE = (0.0, 1.0)
"""Mean and std: SFace takes RGB from 0 to 255 unchanged. OpenCV's `FaceRecognizerSF::feature` swaps BGR and calls
`blobFromImage` with scale 1 and mean 0 (modules/objdetect/src/face_recognize.cpp).
"""

EMBEDDED = "dlib"
"""The recognizer that comes with the package."""

IS_IT_ONE = "is this a face recognizer? recognizer: dlib needs no file"


@runtime_checkable
class Recognizer(Protocol):
    """Maps a face to a vector that is close to other vectors of the same person.

    id: name or file; sha256: of the weights; notice: a sentence to show next to its scores, "" for none.
    """

    id: str
    sha256: str
    notice: str

    def embed(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> Embeddings:
        """One L2-normalized row for each pair of RGB image and face in it."""
        ...


class InceptionResnet:
    """InceptionResnetV1 trained on VGGFace2 or CASIA-WebFace (facenet-pytorch); 512-d.

    Raises:
        UserError: the weights are not available, or belong to a different network.
    """

    notice = ""

    def __init__(self, name: str, device: str | torch.device = "cpu") -> None:
        file = find_weights(RECOGNIZERS[name])
        self.id, self.sha256, self._device = name, sha256(file), torch.device(device)
        state = {key: value for key, value in read_state_dict(file).items() if not key.startswith("logits.")}
        with undisturbed_rng():
            network = InceptionResnetV1(pretrained=None, classify=False)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"{file}: not the weights of InceptionResnetV1; delete it to download it again") from error
        self._network = network.eval().requires_grad_(False).to(self._device, memory_format=torch.channels_last)

    def embed(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> Embeddings:
        crops = [facenet_crop(image, face) for image, face in zip(images, faces, strict=True)]
        rows = [np.zeros((0, 512), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(crops), BATCH):
                batch = torch.stack(crops[start : start + BATCH])
                batch = batch.to(self._device, memory_format=torch.channels_last)
                rows.append(self._network(batch).float().cpu().numpy())
        return np.concatenate(rows)


class Dlib:
    """dlib's ResNet (King 2017); its weights come with the package; 128-d.

    Measured at full size and at 64 px: the mean cosine is 0.76 and 0.74 for the same person, and 0.01 and 0.08 for
    different people (assets/recognizers/dlib).
    """

    id, notice = "dlib", ""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.sha256, self._device = sha256(WEIGHTS), torch.device(device)
        self._network = load_dlib_resnet().to(self._device).to(memory_format=torch.channels_last)

    def embed(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> Embeddings:
        crops = [dlib_crop(image, face) for image, face in zip(images, faces, strict=True)]
        rows = [np.zeros((0, 128), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(crops), BATCH):
                batch = torch.from_numpy(np.stack(crops[start : start + BATCH])).to(self._device).permute(0, 3, 1, 2)
                rows.append(self._network.embed(batch).cpu().numpy())
        return np.concatenate(rows)


class OnnxRecognizer:
    """Any recognizer in ONNX format that takes faces aligned to ArcFace's template (InsightFace's, SFace).

    One input of n x 3 x size x size, RGB, (x - mean) / std with 127.5 for both unless the file's metadata says `mean`
    or `std`; the first output is n x d. The metadata `notice` is a sentence to show next to the scores.

    Args:
        name: the name in the record; the path if none is given.
        scale: mean and std for a file whose metadata does not state them.

    Raises:
        UserError: the file is missing, onnxruntime is not installed, or the network is of a different kind.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device = "cpu",
        name: str | None = None,
        scale: tuple[float, float] = (127.5, 127.5),
    ) -> None:
        file = user_path(path)
        self.id, self.sha256 = name or str(path), sha256(file)
        self._session = _onnx_session(file, torch.device(device))
        self._input, self._size, self._one_by_one = _onnx_input(file, self._session)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.notice = metadata.get("notice", "")
        said = zip(("mean", "std"), scale, strict=True)
        self._mean, self._std = (_onnx_number(file, metadata, key, otherwise) for key, otherwise in said)
        if self._std == 0:
            raise UserError(f"{file}: found std=0 in its metadata, expected a nonzero number")
        self._none = self._run([np.full((self._size, self._size, 3), 127.5)])[:0]

    def embed(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> Embeddings:
        crops = [arcface_crop(image, face, self._size) for image, face in zip(images, faces, strict=True)]
        step = 1 if self._one_by_one else BATCH
        rows = [self._run(crops[start : start + step]) for start in range(0, len(crops), step)]
        return np.concatenate([self._none, *rows])

    def _run(self, crops: list[Any]) -> Embeddings:
        batch = ((np.stack(crops) - self._mean) / self._std).transpose(0, 3, 1, 2).astype(np.float32)
        try:
            found = np.asarray(self._session.run(None, {self._input: batch})[0])
        except Exception as error:  # onnxruntime's errors have no other common base
            raise UserError(f"{self.id}: fails on faces of {self._size} pixels ({error}); {IS_IT_ONE}") from error
        if found.ndim != 2 or len(found) != len(crops) or not np.isfinite(found).all():
            raise UserError(
                f"{self.id}: the output for {len(crops)} faces has shape {found.shape}; expected {len(crops)} rows of "
                f"finite numbers, one vector per face; {IS_IT_ONE}"
            )
        rows = found.astype(np.float32)
        if rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
            raise UserError(
                f"{self.id}: the output is {rows.shape[1]} probabilities, as from a classifier; {IS_IT_ONE}"
            )
        unit: Embeddings = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return unit


def _sface(device: str | torch.device = "cpu") -> OnnxRecognizer:
    require("onnxruntime", "recognizer: sface")
    return OnnxRecognizer(find_weights(RECOGNIZERS["sface"]), device, "sface", SFACE_SCALE)


BY_NAME: Mapping[str, Callable[[str | torch.device], Recognizer]] = {
    "vggface2": partial(InceptionResnet, "vggface2"),
    "casia-webface": partial(InceptionResnet, "casia-webface"),
    "dlib": Dlib,
    "sface": _sface,
}
"""The recognizers that a config can name, each with a function that loads it onto a device."""


def load_recognizer(recognizer: str | Path, device: str | torch.device = "cpu") -> Recognizer:
    """One of `BY_NAME`, or the recognizer in ONNX format at a path.

    Raises:
        UserError: it is neither, or it is not available or cannot be loaded.
    """
    if recognizer in BY_NAME:
        return BY_NAME[str(recognizer)](device)
    if user_path(recognizer).is_file():
        return OnnxRecognizer(recognizer, device)
    known = ", ".join(BY_NAME)
    raise UserError(f"recognizer: found {str(recognizer)!r}, expected {known} or the path of an ONNX file that exists")


def _onnx_session(file: Path, device: torch.device) -> Any:
    onnxruntime = require("onnxruntime", f"{file}: a recognizer in ONNX format")
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(file), providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no other common base
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot load it as an ONNX model ({reason}); {IS_IT_ONE}") from error


def _onnx_input(file: Path, session: Any) -> tuple[str, int, bool]:
    """The name of the input, the side of its images, and whether it takes only one image at a time."""
    inputs = session.get_inputs()
    shape = list(inputs[0].shape)
    sides = [side for side in shape[2:] if isinstance(side, int)]
    square = len(shape) == 4 and shape[1] == 3 and len(set(sides)) <= 1
    if len(inputs) != 1 or not square or inputs[0].type != "tensor(float)":
        found = ", ".join(f"{entry.type} {list(entry.shape)}" for entry in inputs)
        raise UserError(f"{file}: found the inputs {found}; expected one, tensor(float) [n, 3, size, size]")
    return inputs[0].name, sides[0] if sides else ARCFACE_SIZE, shape[0] == 1


def _onnx_number(file: Path, metadata: dict[str, str], key: str, otherwise: float) -> float:
    try:
        found = float(metadata.get(key, otherwise))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{file}: found {key}={metadata[key]!r} in its metadata, expected a number")
    return found
