"""Metrics share what they read of an image, and none sees what another has done to it."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.metrics.diversity import Diversity
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.metrics.leakage import Leakage
from finetune_monitor.metrics.recognized import Recognized
from finetune_monitor.models.face_reader import FaceReader
from finetune_monitor.monitor.evaluator import Evaluator
from finetune_monitor.monitor.shared_images import SharedImages
from finetune_monitor.record.grid import PromptGrid


def photos(count: int) -> list[Image.Image]:
    photo = Image.fromarray(astronaut())
    return [photo.crop((100 + 4 * i, 0, 350 + 4 * i, 250)) for i in range(count)]


def test_the_same_copies_go_to_all():
    (image,) = photos(1)
    shared = SharedImages({7: image})
    (first,), (second,) = shared.copies(), shared.copies()
    assert shared.places == [7]
    assert first is second
    assert first is not image


@pytest.mark.parametrize(
    "spoil",
    [
        lambda copy: copy.paste("red", (0, 0, 1, 1)),
        lambda copy: copy.putpixel((249, 249), (1, 2, 3)),
        lambda copy: copy.thumbnail((10, 10)),
        lambda copy: copy.close(),
        lambda copy: setattr(copy, "im", copy.convert("L").im),
    ],
)
def test_a_spoiled_copy_is_replaced_and_the_others_stay(spoil):
    images = photos(2)
    shared = SharedImages(dict(enumerate(images)))
    before = shared.copies()
    spoil(before[1])
    after = shared.copies()
    assert after[0] is before[0]
    assert [image.tobytes() for image in after] == [image.tobytes() for image in images]


class Found:
    """Images that are there already."""

    pipeline, found_step = SimpleNamespace(components={}), None
    size = (250, 250)

    def __init__(self, grid, images):
        self.grid, self.images = grid, images

    def render(self, cells):
        return [self.images[cell.index] for cell in cells]

    def remedy(self, error):
        return ""

    def precision(self):
        return nullcontext()


@pytest.mark.slow
def test_the_face_metrics_of_a_run_read_each_image_once(tmp_path, monkeypatch):
    grid = PromptGrid(["sks person", "sks person smiling"], (0, 1), probe_prompts=("a person",), images_per_probe=2)
    photos(1)[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")
    reader, read = FaceReader("dlib"), []
    metrics = [
        FaceSimilarity(photos(3), reader),
        Recognized(photos(3), tmp_path, reader),
        Leakage(photos(3), reader),
        Diversity(reader),
    ]
    metrics[1].read_gallery()
    find = reader._finder.find
    monkeypatch.setattr(reader._finder, "find", lambda images, *given: read.append(len(images)) or find(images, *given))
    columns = {name: column for metric in metrics for name, column in metric.describe().columns.items()}
    found = Evaluator(Found(grid, photos(6)), metrics, columns).measure()
    assert read == [6]
    assert np.isfinite([image.scores["face_similarity"] for image in found.images[:4]]).all()
    assert np.isfinite([image.scores["probe_similarity"] for image in found.images[4:]]).all()
    assert np.isfinite([image.scores["face_distance"] for image in found.images[:4]]).all()
