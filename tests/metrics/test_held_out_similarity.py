"""Likeness to held-out photos: a column, a ceiling and small images of its own; nothing where none is held out."""

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics import describe
from finetune_monitor.metrics.face_similarity import HELD_OUT, FaceSimilarity
from finetune_monitor.metrics.starred import Starred
from finetune_monitor.metrics.thresholds import Buckets, Thresholds, weights_of
from finetune_monitor.record.grid import PromptGrid

RECOGNIZER = "dlib"
CELLS = PromptGrid(["a photo of sks person"]).cells
PHOTO = Image.fromarray(astronaut()).crop((80, 0, 380, 300))
TURNED = PHOTO.rotate(8, Image.Resampling.BICUBIC)
MIRRORED = PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
BLANK = Image.new("RGB", (300, 300), "gray")
IMAGES = [MIRRORED, BLANK, TURNED]


@pytest.fixture(scope="module")
def metric() -> FaceSimilarity:
    return FaceSimilarity([PHOTO], RECOGNIZER, held_out=[TURNED, MIRRORED])


@pytest.mark.slow
def test_the_column_is_the_mean_cosine_to_the_held_out_photos_alone(metric):
    found = metric.score(IMAGES, CELLS[:3])
    to_used, to_held_out = (
        FaceSimilarity(photos, RECOGNIZER).score(IMAGES, CELLS[:3])["face_similarity"]
        for photos in ([PHOTO], [TURNED, MIRRORED])
    )
    assert np.allclose(found["face_similarity"], to_used, atol=1e-5, equal_nan=True)
    assert np.allclose(found[HELD_OUT], to_held_out, atol=1e-5, equal_nan=True)
    assert np.isnan(found[HELD_OUT][1])
    assert not np.allclose(to_used[[0, 2]], to_held_out[[0, 2]], atol=1e-3)
    assert np.isnan(metric.score([BLANK], CELLS[:1])[HELD_OUT]).all()


def test_it_has_a_direction_bounds_and_a_ceiling_of_its_own(metric):
    columns = {name: column for name, column in describe(metric).columns.items() if column.is_main}
    assert list(columns) == ["face_similarity", HELD_OUT]
    assert columns[HELD_OUT].direction_json() == {"higher_is_better": True, "bounds": (-1.0, 1.0)}
    among = FaceSimilarity([TURNED, MIRRORED], RECOGNIZER).describe().ceilings["face_similarity"]
    ceilings = metric.describe().ceilings
    assert ceilings[HELD_OUT].mean == pytest.approx(among.mean, abs=1e-5)
    assert ceilings[HELD_OUT].n == 2
    assert np.isnan(ceilings["face_similarity"].mean)  # one photo has no other


def test_without_held_out_photos_nothing_is_added():
    metric = FaceSimilarity([PHOTO, TURNED], RECOGNIZER)
    assert set(metric.score([PHOTO], CELLS[:1])) == {"face_similarity", "faces_found", "face_similarity_zero_filled"}
    said = metric.describe()
    assert set(said.columns) == {"face_similarity", "faces_found", "face_similarity_zero_filled"}
    assert set(said.ceilings) == {"face_similarity"}
    assert set(said.weights) == {"recognizer", "references"}


def test_it_says_which_photos_are_held_out(tmp_path):
    (tmp_path / "more").mkdir()
    PHOTO.save(tmp_path / "used.png")
    TURNED.save(tmp_path / "more/kept.png")
    metric = FaceSimilarity([tmp_path / "used.png"], RECOGNIZER, held_out=tmp_path / "more")
    described = metric.describe().weights
    kept = {"file": str(tmp_path / "more/kept.png"), "sha256": sha256(tmp_path / "more/kept.png")}
    assert described["held_out"] == [kept]
    assert [photo["sha256"] for photo in described["references"]] == [sha256(tmp_path / "used.png")]
    assert set(metric.describe().thumbnails) == {photo["sha256"] for photo in (*described["references"], kept)}


def test_held_out_photos_without_a_face_are_named(tmp_path):
    BLANK.save(tmp_path / "wall.png")
    with pytest.raises(UserError, match=r"1 of 2 reference photos show no face(?s:.*)wall\.png: no face found"):
        FaceSimilarity([PHOTO], RECOGNIZER, held_out=[tmp_path / "wall.png"])


def test_stars_leave_everything_else_as_it_is(metric):
    fitted = Thresholds(
        "face_similarity", Buckets(np.array([0.1, 0.3, 0.5, 0.7]), 1.0), "least_cost", 1.0, 5, 64, 320,
        weights_of(FaceSimilarity([PHOTO], RECOGNIZER).describe().weights),
    )  # fmt: skip
    starred = Starred(metric, fitted)
    main = [name for name, column in describe(starred).columns.items() if column.is_main]
    assert main == ["face_similarity", "face_similarity_stars", HELD_OUT]
    found, plain = starred.score(IMAGES, CELLS[:3]), metric.score(IMAGES, CELLS[:3])
    assert np.array_equal(found[HELD_OUT], plain[HELD_OUT], equal_nan=True)
    assert repr(starred.describe().ceilings) == repr(metric.describe().ceilings)  # one photo: not a number
    assert starred.describe().thumbnails == metric.describe().thumbnails
