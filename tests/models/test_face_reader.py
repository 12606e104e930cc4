"""Images are read once, whoever asks, and the largest face has the same embedding as among all faces."""

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.models.face_reader import FaceReader


@pytest.fixture
def images() -> list[Image.Image]:
    """Two faces, one, and none."""
    photo = Image.fromarray(astronaut())
    pair = Image.new("RGB", (700, 512))
    pair.paste(photo)
    pair.paste(photo.resize((180, 180)), (515, 0))
    return [pair, photo.crop((100, 0, 350, 250)), Image.new("RGB", (80, 80))]


@pytest.fixture
def reader(monkeypatch) -> FaceReader:
    made = FaceReader("dlib")
    made.embedded = []
    embed = made.embed
    monkeypatch.setattr(made, "embed", lambda images, faces: made.embedded.append(len(faces)) or embed(images, faces))
    return made


def test_the_largest_face_has_the_embedding_that_it_has_among_all(reader, images):
    largest, everyone = reader.read_largest(images), reader.read(images)
    assert [len(rows) for rows in everyone] == [2, 1, 0]
    for one, rows in zip(largest, everyone, strict=True):
        assert np.allclose(one, rows[:1], atol=1e-4)


def test_an_image_is_read_once_by_everyone_who_asks_for_the_same(reader, images):
    for _ in range(2):
        reader.read_largest(images)
    assert reader.embedded == [2]
    reader.read_largest([*images, images[1].copy()])
    assert reader.embedded == [2, 1]


def test_the_photos_that_several_metrics_compare_with_are_embedded_once(reader, images):
    first = [reader.embed_first([image])[0] for image in images]  # one at a time, as the survey of the photos does
    assert [len(rows) for rows in first] == [1, 1, 0]
    assert reader.embedded == [1, 1, 0]
    assert all(np.array_equal(a, b) for a, b in zip(first, reader.embed_first(images), strict=True))
    assert reader.embedded == [1, 1, 0]
    for one, rows in zip(first, reader.read(images), strict=True):
        assert np.allclose(one, rows[:1], atol=1e-4)


def test_all_faces_are_read_at_once_where_a_metric_needs_them(reader, images):
    reader.expect_all()
    assert [len(rows) for rows in reader.read_largest(images)] == [1, 1, 0]
    assert [len(rows) for rows in reader.read(images)] == [2, 1, 0]
    assert reader.embedded == [3]
