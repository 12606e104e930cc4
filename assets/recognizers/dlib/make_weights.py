"""Makes the weights of the recognizer `dlib` out of dlib's own file, and checks them against dlib itself.

pip install dlib-bin face_recognition_models
python assets/recognizers/dlib/make_weights.py --portraits DIR

DIR holds the JPEGs that the demo models are trained on (see assets/demo/README.md). Of the second package one file is
read by its path; the package is never imported.
"""

from __future__ import annotations

import argparse
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut
from torch import Tensor, nn

from dat_file import Layer, read_layers
from finetune_monitor.base.files import sha256
from finetune_monitor.models.dlib_resnet import WEIGHTS, DlibResnet, load_dlib_resnet
from finetune_monitor.models.faces import FaceFinder, dlib_crop

PACKAGE, FILE = "face_recognition_models", "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
MEAN_EVERY = 6
"""Every sixth portrait by name, from the first, shows one of the other people whose mean is subtracted."""
TAKEN = Path(__file__).with_name("mean_portraits.sha256")
"""Which they were, in the format of sha256sum."""
CHECKED = 24
LARGEST_CHANGE, LARGEST_CHANGE_IN_HALF = 1e-5, 2e-3
GOLDEN = 8


def dat_path() -> Path:
    """Where the package that carries dlib's file has put it.

    Raises:
        FileNotFoundError: there is none, or it is another file.
    """
    found = next((Path(entry.locate()) for entry in files(PACKAGE) or [] if entry.name == FILE), None)
    if found is None or sha256(found) != SHA256:
        raise FileNotFoundError(f"{PACKAGE}: found {found}, expected {FILE} with sha256 {SHA256}")
    return found


def network_from(layers: list[Layer]) -> DlibResnet:
    """The network in single precision: each affine layer is folded into the convolution before it."""
    network = DlibResnet()
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    *folded, last = layers
    for module, convolution, affine in zip(modules, folded[::2], folded[1::2], strict=True):
        weight, bias = fold(torch.tensor(convolution.numbers), torch.tensor(affine.numbers), module.weight.shape)
        module.weight.data.copy_(weight)
        module.bias.data.copy_(bias)
    network.last.weight.data.copy_(torch.tensor(last.numbers).view(256, 128).T)
    return network.eval().requires_grad_(False)


def fold(convolution: Tensor, affine: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Filters and biases that do what the convolution and then the scale and the shift of each channel do."""
    gamma, beta = affine.view(2, -1)
    filters, biases = convolution.split([shape.numel(), shape[0]])
    return filters.view(shape) * gamma[:, None, None, None], biases * gamma + beta


def mean_portraits(folder: Path) -> list[Path]:
    """The portraits of the people whose mean descriptor is subtracted."""
    return sorted(folder.glob("*.jpg"))[::MEAN_EVERY]


def chips_of(images: list[Image.Image]) -> np.ndarray:
    """The aligned largest face of each image that shows one, as bytes."""
    found = FaceFinder().find(images)
    chips = [dlib_crop(image, faces[0]) for image, faces in zip(images, found, strict=True) if faces]
    return np.stack(chips).astype(np.uint8)


@torch.inference_mode()
def descriptors(network: DlibResnet, chips: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(chips).permute(0, 3, 1, 2).float().split(16)
    return torch.cat([network(part) for part in parts]).numpy()


def dlibs_own(path: Path, chips: np.ndarray) -> np.ndarray:
    import dlib

    model = dlib.face_recognition_model_v1(str(path))
    return np.array([model.compute_face_descriptor(chip) for chip in chips])


def halved(network: DlibResnet) -> dict[str, Tensor]:
    """The large weights in half precision; vectors, which are small, stay as they are."""
    return {name: (x.half() if x.ndim > 1 else x).contiguous() for name, x in network.state_dict().items()}


def write(network: DlibResnet, source: Path) -> None:
    notes = {
        "license": "CC0-1.0 / public domain, Davis King, https://github.com/davisking/dlib-models",
        "source": f"{source.name}, sha256 {sha256(source)}",
    }
    save_file(halved(network), WEIGHTS, metadata=notes)


def checked(name: str, network: DlibResnet, chips: np.ndarray, expected: np.ndarray, largest: float) -> None:
    change = float(np.abs(descriptors(network, chips) - expected).max())
    print(f"{name}: greatest difference from dlib {change:.1e} on {len(chips)} faces")
    if change > largest:
        raise ValueError(f"{name}: expected at most {largest:g}; the port or the file is another one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, help="folder with the JPEG portraits")
    source = dat_path()
    network = network_from(read_layers(source.read_bytes()))
    others = mean_portraits(parser.parse_args().portraits)
    chips = chips_of([Image.fromarray(astronaut()), *(Image.open(path).convert("RGB") for path in others)])
    expected = dlibs_own(source, chips[:CHECKED])
    checked("single precision", network, chips[:CHECKED], expected, LARGEST_CHANGE)
    write(network, source)
    network = load_dlib_resnet()
    checked("stored in half precision", network, chips[:CHECKED], expected, LARGEST_CHANGE_IN_HALF)
    network.others.copy_(torch.from_numpy(descriptors(network, chips[1:]).mean(axis=0)))
    write(network, source)
    TAKEN.write_text("".join(f"{sha256(path)}  {path.name}\n" for path in others))
    print(f"the mean is of {len(chips) - 1} faces in {len(others)} portraits, listed in {TAKEN.name}")
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size} bytes, sha256 {sha256(WEIGHTS)}")
    print(f"the astronaut, by dlib: {expected[0][:GOLDEN].round(4).tolist()}, length {np.linalg.norm(expected[0]):.4f}")


if __name__ == "__main__":
    main()
