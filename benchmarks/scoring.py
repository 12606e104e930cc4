"""Time scoring images, compared with facenet-pytorch and open_clip image by image.

python benchmarks/scoring.py --size demo
python benchmarks/scoring.py --size sd15
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from measure import SECONDS, alternate, arguments, comparison, gpu, publish, seconds, shares
from PIL.Image import Image

from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.aesthetic_head import read_head
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.models.clip import has_bf16
from finetune_monitor.models.faces import FaceFinder
from finetune_monitor.models.recognizers import load_recognizer
from models import RECOGNIZER, RECOGNIZER_FILE, aesthetic_head, astronaut_photos, clip_folder, recognizer_cache

REFERENCES = 6
CLIPS = {"demo": "the demo's CLIP", "sd15": "ViT-L-14-quickgelu with random weights"}

HALVED = "; finetune_monitor runs CLIP's MLPs in bf16"


class OneByOne:
    """The approach in the two libraries' READMEs: one image at a time, without gradients."""

    def __init__(self, size: str, device: str, references: list[Image]) -> None:
        self.device = device
        self.detector = MTCNN(image_size=160, margin=14, device=device).eval()
        self.recognizer = InceptionResnetV1(pretrained=None).eval().to(device)
        self.recognizer.load_state_dict(torch.load(recognizer_cache() / RECOGNIZER_FILE, weights_only=True))
        self.clip, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder(size)}")
        self.clip.eval().to(device)
        self.head = read_head(aesthetic_head(size))[0].to(device)
        with torch.no_grad():
            self.references = torch.stack([self.embed(self.detect(image)) for image in references])

    def __call__(self, images: list[Image]) -> tuple[np.ndarray, np.ndarray]:
        """The similarity, NaN without a face, and the rating of each image."""
        with torch.no_grad():
            return np.array([self.similarity(i) for i in images]), np.array([self.rating(i) for i in images])

    def similarity(self, image: Image) -> float:
        face = self.detect(image)
        return float((self.references @ self.embed(face)).mean()) if face is not None else np.nan

    def rating(self, image: Image) -> float:
        return float(self.head(self.encode(self.preprocess(image))))

    def detect(self, image: Image) -> Any:
        return self.detector(image)

    def embed(self, face: torch.Tensor) -> torch.Tensor:
        return self.recognizer(face[None].to(self.device))[0]

    def encode(self, prepared: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.clip.encode_image(prepared[None].to(self.device)), dim=-1)

    def parts(self, images: list[Image]) -> dict[str, float]:
        """Seconds of each part over all images."""
        with torch.no_grad():
            faces, detecting = _kept(lambda: [self.detect(image) for image in images])
            found = [face for face in faces if face is not None]
            prepared, preparing = _kept(lambda: [self.preprocess(image) for image in images])
            return {
                "find and cut out the face": detecting,
                "embed the face": seconds(lambda: [self.embed(face) for face in found])(),
                "prepare for CLIP": preparing,
                "run CLIP and head": seconds(lambda: [self.head(self.encode(image)) for image in prepared])(),
            }


class Ours:
    """The two metrics as the monitor calls them."""

    def __init__(self, size: str, device: str, references: list[Image]) -> None:
        self.faces = FaceSimilarity(references, RECOGNIZER, device)
        self.aesthetic = Aesthetic(str(clip_folder(size)), None, aesthetic_head(size), device)
        self.finder, self.recognizer = FaceFinder(device), load_recognizer(RECOGNIZER, device)

    def __call__(self, images: list[Image]) -> tuple[np.ndarray, np.ndarray]:
        return self.faces.score(images, [])["face_similarity"], self.aesthetic.score(images, [])["aesthetic"]

    def parts(self, images: list[Image]) -> dict[str, float]:
        """Seconds of each part over all images."""
        found, finding = _kept(lambda: self.finder.find_largest(images))
        pairs = [(image, faces[0]) for image, faces in zip(images, found, strict=True) if faces]
        shown, largest = [image for image, _ in pairs], [face for _, face in pairs]
        return {
            "find the face": finding,
            "cut out and embed the face": seconds(lambda: self.recognizer.embed(shown, largest))(),
            "prepare for CLIP, run CLIP and head": seconds(lambda: self.aesthetic.score(new(images), []))(),
        }


def new(images: list[Image]) -> list[Image]:
    """The same images as new objects, because the package caches the CLIP embeddings of image objects."""
    return [image.copy() for image in images]


def _kept(action: Callable[[], Any]) -> tuple[Any, float]:
    """The action's result and the seconds it took."""
    results: list[Any] = []
    took = seconds(lambda: results.append(action()))()
    return results[0], took


def agreement(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> str:
    """How many faces each side found, and how much their scores differ."""
    faces = [int(np.isfinite(similarity).sum()) for similarity, _ in (ours, theirs)]
    apart = [float(np.nanmax(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True)]
    return (
        f"of the first {len(ours[0])}, finetune_monitor found a face in {faces[0]} and the other method in "
        f"{faces[1]}; the largest difference is {apart[0]:.4f} in similarity and {apart[1]:.4f} in rating"
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=512)
    options = parser.parse_args()
    os.environ["FINETUNE_MONITOR_CACHE"] = os.environ["TORCH_HOME"] = str(recognizer_cache())
    device, side = "cuda" if gpu() else "cpu", (options.pixels, options.pixels)
    images, references = astronaut_photos(side, options.images), astronaut_photos(side, REFERENCES)
    theirs, ours = OneByOne(options.size, device, references), Ours(options.size, device, references)
    apart = agreement(ours(images[:8]), theirs(images[:8]))
    values = alternate(
        {"one by one": seconds(lambda: theirs(new(images))), "finetune_monitor": seconds(lambda: ours(new(images)))},
        options.rounds,
    )
    halves = options.size == "sd15" and device == "cpu" and has_bf16()
    precision = f"float32{HALVED if halves else ''}"
    notes = [
        "- Both methods use the same networks: MTCNN with its own weights, InceptionResnetV1 with random weights (as "
        f"fast as VGGFace2's), and {CLIPS[options.size]}.",
        f"- {options.images} crops of one portrait at {options.pixels} px, {device}, {precision}; {apart}.",
    ]
    tables = [comparison(values, SECONDS, f"{options.images} images"), "\n".join(notes)]
    tables += [
        shares(theirs.parts(images), "one by one, one run"),
        shares(ours.parts(images), "finetune_monitor, one run"),
    ]
    publish("Scoring images", options.size, tables)


if __name__ == "__main__":
    main()
