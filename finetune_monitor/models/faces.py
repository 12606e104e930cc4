"""Find faces (MTCNN) and crop them the way a recognizer was trained."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from facenet_pytorch import MTCNN, extract_face, fixed_image_standardization
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from finetune_monitor.models.face_detection import Detections, Detector, Search
from finetune_monitor.models.weights import undisturbed_rng

DETECTION_SHORT_SIDE, DETECTION_LONG_SIDE = 192, 1600
"""Images are scaled to lie between these sizes for the detector; large ones would take seconds.

Measured on 32 portraits reduced to 64 pixels: the mean error of the landmarks is 4.3% of the distance between the eyes
if detected at 64 pixels, 2.8% at 128, 2.1% at 192, 2.2% at 256, and 2.5% at 384, which costs twice as much.
"""

MINIMUM_PROBABILITY = 0.95
"""Detections below this are dropped. Measured: faces of 14 to 28 pixels in images of 64, some of them blurred and
noisy, all had 0.98 or more; false ones in photos and generated landscapes had 0.91 or less.
"""

SEARCHES = ((1 / 6, 1 / 4), (1 / 10, 3 / 20))
"""The first searches for the largest face, as shares of the image's shorter side: from which size faces are looked for,
and from which size a face that was found is the largest one.

Measured on 10,230 images of 64 to 768 pixels (901 photos, shrunken, turned, and put into scenes, and generated images),
10,215 with a face: all but one have the same largest face. At 512 pixels, finding a face of at least 1/4 takes a third
of the time of finding all, and one of at least 3/20 takes 3/4. Where it is smaller, or there is none, it takes 1.4
times as long.
"""

LARGEST_ENLARGEMENT = 8.0

SMALLEST_IMAGE = 12
"""Minimum of the shorter side in pixels; MTCNN's first network has no input below that."""

SMALLEST_FACE = 2.0
"""Pixels of the image that a box must cover to be cropped."""

FACENET_SIZE, FACENET_MARGIN = 160, 14
"""Crop size and margin in pixels that the author of facenet-pytorch specifies for its weights."""

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace (Deng et al. 2019) expects the eyes, the nose, and the corners of the mouth, in 112 x 112 pixels."""

ARCFACE_SIZE = 112

DLIB_TEMPLATE = np.array([[42.6, 34.5], [100.5, 34.1], [71.4, 70.9], [42.9, 94.6], [100.6, 95.5]])
"""Where MTCNN finds the same points, on average, in chips of 150 x 150 pixels aligned by dlib itself."""

DLIB_SIZE = 150


@dataclass(frozen=True)
class Face:
    """A face in an image, in the image's pixel coordinates.

    box: left, top, right, bottom; may extend beyond the image's edge.
    landmarks: left eye, right eye, nose, left and right corners of the mouth, from the viewer's side, as (x, y).
    probability: the detector's confidence, 0 to 1.
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    probability: float

    @property
    def short_side(self) -> float:
        left, top, right, bottom = self.box
        return float(min(right - left, bottom - top))

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return float((right - left) * (bottom - top))


class FaceFinder:
    """MTCNN (Zhang et al. 2016) with facenet-pytorch's weights and thresholds, which come with the package."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        with undisturbed_rng():
            self._detector = Detector(MTCNN(device=torch.device(device)))

    def find(self, images: Sequence[Image.Image]) -> list[list[Face]]:
        """The faces of each RGB image, largest first; an empty list if there are none."""
        return self._found(images, _all_faces)

    def find_largest(self, images: Sequence[Image.Image]) -> list[list[Face]]:
        """The largest face of each RGB image, as `find` finds it; an empty list if there is none.

        Small faces are looked for only in images without a large one, which usually takes half the time.
        """
        return self._found(images, _largest_face)

    def _found(
        self, images: Sequence[Image.Image], look: Callable[[Search, tuple[int, int]], list[list[Face]]]
    ) -> list[list[Face]]:
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            if min(image.size) >= SMALLEST_IMAGE:
                groups[image.size].append(index)
        found: list[list[Face]] = [[] for _ in images]
        for size, indices in groups.items():
            scaled = detection_size(size)
            searches = self._detector.searches([_pixels(images[index], scaled) for index in indices])
            of_group = [faces for search in searches for faces in look(search, size)]
            for index, faces in zip(indices, of_group, strict=True):
                found[index] = faces
        return found


def _all_faces(search: Search, size: tuple[int, int]) -> list[list[Face]]:
    """All faces of the images of a search, in pixels of images of this size."""
    return [_faces(each, size) for each in search.detect(range(search.count))]


def _largest_face(search: Search, size: tuple[int, int]) -> list[list[Face]]:
    """The largest face of the images of a search, in pixels of images of this size."""
    found: list[list[Face]] = [[] for _ in range(search.count)]
    unsure = list(range(search.count))
    for smallest, large in (*SEARCHES, (0.0, 0.0)):
        if not unsure or search.is_complete:
            break
        for index, detections in zip(unsure, search.detect(unsure, smallest), strict=True):
            found[index] = _faces(detections, size)[:1]
        unsure = [i for i in unsure if not found[i] or found[i][0].short_side < large * min(size)]
    return found


def _pixels(image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The image as an array at the detector's size."""
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))


def detection_size(size: tuple[int, int]) -> tuple[int, int]:
    """The width and height at which an image of this size is passed to the detector."""
    short, long = min(size), max(size)
    scale = 1.0
    if short < DETECTION_SHORT_SIDE:
        scale = min(DETECTION_SHORT_SIDE / short, LARGEST_ENLARGEMENT)
    scale = min(scale, max(DETECTION_LONG_SIDE / long, SMALLEST_IMAGE * 2 / short))
    return round(size[0] * scale), round(size[1] * scale)


def _faces(found: Detections, size: tuple[int, int]) -> list[Face]:
    """The detections in one image of this size, in its own pixel coordinates."""
    ratio = np.array(size, dtype=np.float64) / detection_size(size)
    faces = [
        Face(box * np.tile(ratio, 2), landmarks * ratio, float(probability))
        for box, landmarks, probability in zip(found.boxes, found.landmarks, found.probabilities, strict=True)
    ]
    return sorted((face for face in faces if _is_usable(face, size)), key=lambda face: -face.area)


def _is_usable(face: Face, size: tuple[int, int]) -> bool:
    """Whether the detector is confident enough and enough of the box lies inside the image."""
    inside = np.clip(face.box.reshape(2, 2), 0, size)
    can_be_cut_out = (inside[1] - inside[0] >= SMALLEST_FACE).all() and np.ptp(face.landmarks, axis=0).max() > 0
    return bool(face.probability >= MINIMUM_PROBABILITY and can_be_cut_out)


def facenet_crop(image: Image.Image, face: Face) -> Float[Tensor, "3 160 160"]:
    """The face as cropped by facenet-pytorch's `MTCNN(image_size=160, margin=14)`: (x - 127.5) / 128, RGB."""
    crop: Tensor = fixed_image_standardization(extract_face(image, face.box, FACENET_SIZE, FACENET_MARGIN))
    return crop


def arcface_crop(image: Image.Image, face: Face, size: int = ARCFACE_SIZE) -> Float[np.ndarray, "size size 3"]:
    """The face aligned to ArcFace's template, scaled to the crop size."""
    return aligned_crop(image, face, ARCFACE_TEMPLATE * (size / ARCFACE_SIZE), size)


def dlib_crop(image: Image.Image, face: Face) -> Float[np.ndarray, "150 150 3"]:
    """The face aligned as in the training of dlib's recognizer."""
    return aligned_crop(image, face, DLIB_TEMPLATE, DLIB_SIZE)


def aligned_crop(
    image: Image.Image, face: Face, template: Float[np.ndarray, "5 2"], size: int
) -> Float[np.ndarray, "size size 3"]:
    """The face rotated, scaled, and shifted onto a template of landmarks; RGB, 0 to 255; black outside the image.

    Sampled at least as densely as the image's own pixels and then averaged, to avoid aliasing in large faces.
    """
    to_template = similarity_transform(face.landmarks, template)
    pixels_across = 1 / math.hypot(to_template[0, 0], to_template[1, 0])
    dense = min(max(math.ceil(pixels_across), 2), 32)
    to_image = np.linalg.inv(to_template) @ np.diag([1 / dense, 1 / dense, 1.0])
    side = size * dense
    sampled = image.transform(
        (side, side), Image.Transform.AFFINE, to_image[:2].ravel().tolist(), Image.Resampling.BICUBIC
    )
    return np.asarray(sampled.resize((size, size), Image.Resampling.BOX), dtype=np.float32)


def similarity_transform(
    source: Float[np.ndarray, "points 2"], target: Float[np.ndarray, "points 2"]
) -> Float[np.ndarray, "3 3"]:
    """The rotation, scale, and shift that map `source` closest to `target` by least squares (Umeyama 1991)."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centered, target_centered = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(target_centered.T @ source_centered / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (singular * signs).sum() / source_centered.var(axis=0).sum()
    matrix = np.eye(3)
    matrix[:2, :2] = scale * rotation
    matrix[:2, 2] = target_mean - scale * rotation @ source_mean
    return matrix
