"""What the curve of the similarity does not show: leakage, copies, faces that become alike, who would be recognized."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skimage import data

from finetune_monitor import PromptGrid
from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import RunContext, describe
from finetune_monitor.metrics.copying import Copying, _Nearness
from finetune_monitor.metrics.diversity import Diversity
from finetune_monitor.metrics.face_similarity import NAME
from finetune_monitor.metrics.leakage import PROBE_SIMILARITY, Leakage
from finetune_monitor.metrics.recognized import OTHERS, Recognized
from finetune_monitor.models.clip import ClipEncoder
from finetune_monitor.models.face_reader import FaceReader
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.stats.intervals import ratio

GRID = PromptGrid(["a photo of sks person"], images_per_prompt=8, probe_prompts=["a man", "a woman"])
PHOTO = Image.fromarray(data.astronaut()).crop((130, 0, 330, 200))
CAT = Image.fromarray(data.chelsea()).resize((200, 200))


@pytest.fixture(scope="module")
def reader():
    return FaceReader("dlib")


def evaluation(step: int, subject: float, probes: float, rng: np.random.Generator, noise: float = 0.05) -> Evaluation:
    """Similarities around these means."""
    images = tuple(
        ScoredImage(
            cell,
            None,
            {
                PROBE_SIMILARITY if cell.is_probe else NAME: (probes if cell.is_probe else subject)
                + noise * rng.normal()
            },
        )
        for cell in GRID.cells
    )
    return Evaluation(step, None, 0.0, summarize(images, {}), images)


def test_leakage_is_the_probes_rise_as_a_share_of_the_subjects(reader):
    rng = np.random.default_rng(2)
    metric = Leakage([PHOTO], reader)
    found = metric.derive([evaluation(0, 0.0, 0.0, rng), evaluation(100, 0.6, 0.3, rng)])["leakage"]
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.4
    assert found.n == 12


def test_the_interval_of_the_leakage_covers(reader):
    rng, metric, covered = np.random.default_rng(1), Leakage([PHOTO], reader), 0
    for _ in range(400):
        found = metric.derive([evaluation(0, 0.0, 0.0, rng, 0.1), evaluation(100, 0.5, 0.3, rng, 0.1)])["leakage"]
        covered += found.low <= 0.6 <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_there_is_no_leakage_before_the_subject_has_risen(reader):
    rng, metric = np.random.default_rng(0), Leakage([PHOTO], reader)
    first = evaluation(0, 0.0, 0.0, rng)
    assert metric.derive([first]) == {}
    assert metric.derive([first, evaluation(100, 0.0, 0.3, rng)]) == {}


def test_there_is_no_leakage_into_a_single_probe(reader):
    evaluations = [
        replace(each, images=each.images[:9])  # eight images of the subject, and one probe
        for each in (
            evaluation(step, subject, 0.0, np.random.default_rng(step)) for step, subject in ((0, 0), (100, 0.5))
        )
    ]
    assert Leakage([PHOTO], reader).derive(evaluations) == {}


def test_only_probes_are_scored_for_leakage(reader):
    metric = Leakage([PHOTO], reader)
    cells = (GRID.cells[0], GRID.cells[-1], GRID.cells[-2])
    found = metric.score([PHOTO, PHOTO.copy(), CAT], cells)[PROBE_SIMILARITY]
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(1.0, abs=1e-3)
    assert math.isnan(found[2])  # no face


def test_a_copy_is_told_from_another_image():
    photos = [PHOTO, PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT), CAT]
    metric = Copying(photos)
    brighter = PHOTO.point(lambda value: min(255, int(value * 1.1) + 5)).resize((64, 64))
    strange = Image.fromarray(data.coffee()).resize((64, 64))
    found = metric.score([brighter, strange], GRID.cells[:2])
    assert found["copying"].tolist() == [1.0, 0.0]
    assert found["nearest_photo"][0] == 0
    assert found["photo_correlation"][0] > 0.98 > metric.level > found["photo_correlation"][1]


@pytest.mark.parametrize("photos", [2, 5, 20])
def test_of_images_that_are_as_different_as_the_photos_the_documented_share_counts_as_copies(photos):
    rng, shares = np.random.default_rng(0), []
    for _ in range(300):
        rows = rng.normal(1, 1, size=(photos + 20, 64))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        nearness = _Nearness(("copy", "similarity", "photo"), np.stack, rows[:photos])
        shares.append(nearness.score(list(rows[photos:]))["copy"].mean())
    assert np.mean(shares) == pytest.approx(2 / (photos + 1), abs=0.05)


def test_a_nearest_photo_says_which_column_is_its_likeness_and_has_a_small_image():
    said = describe(Copying([PHOTO, CAT]))
    assert [name for name, column in said.columns.items() if column.likeness] == ["nearest_photo"]
    assert said.columns["nearest_photo"].likeness in said.columns
    assert [photo["sha256"] for photo in said.weights["references"]] == list(said.thumbnails)


def test_a_blank_image_copies_nothing_and_one_photo_is_refused():
    blank = Image.new("RGB", (64, 64), "white")
    assert Copying([PHOTO, CAT]).score([blank], GRID.cells[:1])["copying"].tolist() == [0.0]
    with pytest.raises(UserError, match="copying: found 1 training photo, expected two or more"):
        Copying([PHOTO])


def test_diversity_is_relative_to_step_0_and_of_subject_and_probes_apart():
    rng, metric = np.random.default_rng(3), Diversity(FakeReader())
    evaluations = []
    for step, spread in ((0, 1.0), (100, 0.3)):
        rows = [_unit(rng, spread if cell.is_probe else 1.0) for cell in GRID.cells]
        columns = metric.compare(rows, GRID.cells)
        images = tuple(
            ScoredImage(
                cell,
                None,
                {
                    name: float(values[cell.index])
                    for name, values in columns.items()
                    if ("probe" in name) == cell.is_probe
                },
            )
            for cell in GRID.cells
        )
        evaluations.append(Evaluation(step, None, 0.0, summarize(images, {}), images))
    found = metric.derive(evaluations)
    assert found["diversity"].low < 1.0 < found["diversity"].high
    assert found["probe_diversity"].mean < 0.6
    assert metric.derive(evaluations[:1]) == {}


class FakeReader(FaceReader):
    """Never asked: the embeddings are made by the test."""

    def __init__(self) -> None: ...

    @property
    def identity(self) -> dict[str, str]:
        return {"id": "none", "sha256": ""}


def _unit(rng: np.random.Generator, spread: float) -> np.ndarray:
    row = np.eye(16)[0] + spread * rng.normal(size=16)
    return row / np.linalg.norm(row)


def test_a_prompt_with_one_face_has_no_distance():
    rows = [_unit(np.random.default_rng(0), 1.0), *[None] * (len(GRID.cells) - 1)]
    assert all(np.isnan(values).all() for values in Diversity(FakeReader()).compare(rows, GRID.cells).values())


def test_the_two_images_of_a_prompt_have_one_distance_and_count_once():
    grid = PromptGrid(["a"], images_per_prompt=1, probe_prompts=["x", "y", "z"], images_per_probe=2)
    before, after = (0.5, 0.7, 0.6), (0.4, 0.6, 0.55)
    evaluations = [
        Evaluation(
            step,
            None,
            0.0,
            {},
            tuple(
                ScoredImage(cell, None, {"probe_face_distance": distances[(cell.index - 1) // 2]} if cell.index else {})
                for cell in grid.cells
            ),
        )
        for step, distances in ((0, before), (100, after))
    ]
    found = Diversity(FakeReader()).derive(evaluations)["probe_diversity"]
    of_prompts = ratio(np.array(after), np.array(before), np.arange(3))
    assert (found.low, found.mean, found.high) == pytest.approx((of_prompts.low, of_prompts.mean, of_prompts.high))


def test_the_subject_is_recognized_among_others_and_a_cat_is_nobody(reader, tmp_path):
    other = Image.fromarray(data.lfw_subset()[0] * 255).convert("RGB").resize((160, 160), Image.Resampling.BICUBIC)
    gallery = tmp_path / "others"
    gallery.mkdir()
    PHOTO.rotate(90).save(gallery / "no-face.png")
    other.save(gallery / "other.png")
    both = Image.new("RGB", (400, 200))
    both.paste(PHOTO, (0, 0))
    both.paste(PHOTO.resize((120, 120)), (240, 40))
    metric = Recognized([PHOTO.rotate(5)], gallery, reader)
    try:
        found = metric.score([PHOTO, CAT, both], GRID.cells[:3])
    except UserError:
        pytest.skip("the detector finds no face in a picture of 25 pixels enlarged")
    assert found["recognized"].tolist() == [1.0, 0.0, 1.0]
    assert math.isnan(found[OTHERS][0])
    assert found[OTHERS][2] == 1.0


def test_a_gallery_without_a_face_is_refused_before_training(reader, tmp_path):
    CAT.save(tmp_path / "cat.png")
    run = RunContext([], [], "cpu")
    run.shared["faces", "dlib"] = reader
    PHOTO.save(tmp_path / "photo.jpg")
    run = RunContext([tmp_path / "photo.jpg"], [], "cpu")
    run.shared["faces", "dlib"] = reader
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    CAT.save(gallery / "cat.png")
    with pytest.raises(UserError, match="found no face in any image"):
        Recognized.for_run(Recognized.Options("dlib", str(gallery)), run)
    with pytest.raises(UserError, match=r"recognized\.gallery: found neither"):
        Recognized.for_run(Recognized.Options("dlib"), run)


def test_a_wide_photo_is_compared_by_the_square_that_is_trained_on():
    wide = Image.fromarray(data.astronaut()).crop((0, 0, 512, 300))
    metric = Copying([wide, CAT])
    seen = wide.crop((106, 0, 406, 300)).resize((64, 64))
    found = metric.score([seen], GRID.cells[:1])
    assert found["photo_correlation"][0] > 0.99
    assert found["copying"][0] == 1.0


def test_whole_images_are_compared_by_clip_where_it_is_given(reader, tiny_clip):
    metric = Diversity(reader, clip=ClipEncoder(str(tiny_clip)))
    cells = GRID.cells[:3]
    images = [PHOTO, CAT, CAT.copy()]
    found = metric.compare(metric.features(images, cells), cells)
    embedded = ClipEncoder(str(tiny_clip)).embed(images).numpy()
    to_photo = 1 - float(embedded[0] @ embedded[1])
    assert found["clip_distance"] == pytest.approx([to_photo, to_photo / 2, to_photo / 2], abs=1e-5)
    assert np.isnan(found["face_distance"]).all()  # of one face alone
    assert describe(metric).columns["probe_clip_diversity"].alarm == 0.6
    assert describe(metric).weights.keys() == {"recognizer", "clip"}


def test_without_clip_an_image_without_a_face_has_no_feature(reader):
    assert [found is None for found in Diversity(reader).features([PHOTO, CAT], GRID.cells[:2])] == [False, True]


def test_less_diversity_among_the_subjects_own_images_is_neither_better_nor_worse(reader):
    columns = describe(Diversity(reader)).columns
    assert [columns[name].higher_is_better for name in ("diversity", "probe_diversity")] == [None, True]
