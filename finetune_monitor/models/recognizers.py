"""Face recognizers: aligned crops to unit embeddings."""

from collections.abc import Sequence
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
from finetune_monitor.models.faces import ARCFACE_SIZE, Face, arcface_crop, facenet_crop
from finetune_monitor.models.weights import RECOGNIZERS, find_weights, read_state_dict, undisturbed_rng

Embeddings = Float[np.ndarray, "n d"]
"""One L2-normalized row a face."""


BATCH = 16
"""Crops to a forward of the recognizer."""


@runtime_checkable
class Recognizer(Protocol):
    """Turns a face into a vector that is close to those of the same person.

    id: name or file, sha256: of the weights, notice: a sentence that belongs beside its scores, "" for none.
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
        UserError: the weights are missing and out of reach, or are not this network's.
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


class OnnxRecognizer:
    """Any recognizer in ONNX format that takes faces on ArcFace's template (InsightFace's, the demo's).

    One input of n x 3 x size x size, RGB, (x - mean) / std with 127.5 for both unless the file's metadata says `mean`
    or `std`; the first output is n x d. Metadata `notice` is a sentence to show beside the scores.

    Raises:
        UserError: no such file, onnxruntime is not installed, or the network is of another kind.
    """

    def __init__(self, path: str | Path, device: str | torch.device = "cpu") -> None:
        file = Path(path).expanduser()
        self.id, self.sha256 = str(path), sha256(file)
        self._session = _onnx_session(file, torch.device(device))
        self._input, self._size, self._one_by_one = _onnx_input(file, self._session)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.notice = metadata.get("notice", "")
        self._mean, self._std = (_onnx_number(file, metadata, key) for key in ("mean", "std"))

    def embed(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> Embeddings:
        crops = [arcface_crop(image, face, self._size) for image, face in zip(images, faces, strict=True)]
        step = 1 if self._one_by_one else BATCH
        rows = [self._run(crops[start : start + step]) for start in range(0, len(crops), step)]
        return np.concatenate(rows) if rows else np.zeros((0, 1), dtype=np.float32)

    def _run(self, crops: list[Any]) -> Embeddings:
        batch = ((np.stack(crops) - self._mean) / self._std).transpose(0, 3, 1, 2).astype(np.float32)
        found = np.asarray(self._session.run(None, {self._input: batch})[0])
        if found.ndim != 2 or len(found) != len(crops) or not np.isfinite(found).all():
            raise UserError(
                f"{self.id}: the output for {len(crops)} faces has shape {found.shape}; expected {len(crops)} rows of "
                "finite numbers, one vector a face; is this a face recognizer?"
            )
        rows = found.astype(np.float32)
        unit: Embeddings = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return unit


def load_recognizer(recognizer: str | Path, device: str | torch.device = "cpu") -> Recognizer:
    """`vggface2`, `casia-webface`, or the path of a recognizer in ONNX format.

    Raises:
        UserError: none of these, or it cannot be had or loaded.
    """
    if recognizer in RECOGNIZERS:
        return InceptionResnet(str(recognizer), device)
    if Path(recognizer).expanduser().is_file():
        return OnnxRecognizer(recognizer, device)
    known = ", ".join(RECOGNIZERS)
    raise UserError(f"recognizer: found {str(recognizer)!r}, expected {known} or the path of an ONNX file that exists")


def _onnx_session(file: Path, device: torch.device) -> Any:
    onnxruntime = require("onnxruntime", f"{file}: a recognizer in ONNX format")
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(file), providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        raise UserError(f"{file}: cannot be loaded as an ONNX model ({error})") from error


def _onnx_input(file: Path, session: Any) -> tuple[str, int, bool]:
    """Name of the input, side of the images it takes, and whether it takes only one at a time."""
    inputs = session.get_inputs()
    shape = list(inputs[0].shape)
    sides = [side for side in shape[2:] if isinstance(side, int)]
    square = len(shape) == 4 and shape[1] == 3 and len(set(sides)) <= 1
    if len(inputs) != 1 or not square or inputs[0].type != "tensor(float)":
        found = ", ".join(f"{entry.type} {list(entry.shape)}" for entry in inputs)
        raise UserError(f"{file}: its inputs are {found}; expected one, tensor(float) [n, 3, size, size]")
    return inputs[0].name, sides[0] if sides else ARCFACE_SIZE, shape[0] == 1


def _onnx_number(file: Path, metadata: dict[str, str], key: str) -> float:
    try:
        return float(metadata.get(key, "127.5"))
    except ValueError:
        raise UserError(f"{file}: its metadata says {key}={metadata[key]!r}, expected a number") from None
