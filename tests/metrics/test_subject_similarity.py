"""Likeness of whole images: mean cosines to all photos by CLIP, and by DINOv2 where it is named; no face is needed."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, chelsea
from transformers import AutoImageProcessor, Dinov2Model

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics import Described, Metric, RunContext, describe
from finetune_monitor.metrics.subject_similarity import DINO, HELD_OUT, SubjectSimilarity
from finetune_monitor.models.clip import ClipEncoder
from finetune_monitor.models.defaults import PRETRAINED
from finetune_monitor.record.grid import PromptGrid
from support.dino import write_dino
from support.places import DEMO

CLIP = str(DEMO / "clip")
CELLS = PromptGrid(["a photo of sks cat"], images_per_prompt=9).cells
CAT = Image.fromarray(chelsea())
CATS = [CAT, CAT.crop((60, 10, 360, 290)), CAT.transpose(Image.Transpose.FLIP_LEFT_RIGHT), CAT.rotate(9)]
IMAGES = [CAT.crop((40, 0, 400, 300)), Image.fromarray(astronaut()), Image.new("RGB", (64, 64), "gray")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("cats")
    for index, image in enumerate(CATS[:3]):
        image.save(place / f"{index}.png")
    return place


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> str:
    return str(write_dino(tmp_path_factory.mktemp("dino")))


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder(CLIP)


def normalized(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


@torch.no_grad()
def by_clip(images: list[Image.Image]) -> np.ndarray:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    return normalized(model.eval().encode_image(torch.stack([preprocess(image) for image in images])))


@torch.no_grad()
def by_dino(dino: str, images: list[Image.Image]) -> np.ndarray:
    processor, network = AutoImageProcessor.from_pretrained(dino), Dinov2Model.from_pretrained(dino).eval()
    return normalized(network(**processor(images, return_tensors="pt")).pooler_output)


def test_scores_are_mean_cosines_to_all_photos(folder, encoder, dino):
    found = SubjectSimilarity(folder, encoder, dino=dino).score(IMAGES, CELLS[:3])
    assert list(found) == ["subject_similarity", DINO]
    expected = (by_clip(IMAGES) @ by_clip(CATS[:3]).T).mean(axis=1)
    assert np.allclose(found["subject_similarity"], expected, atol=1e-5)
    assert np.allclose(found[DINO], (by_dino(dino, IMAGES) @ by_dino(dino, CATS[:3]).T).mean(axis=1), atol=1e-5)
    assert found["subject_similarity"].argmax() == 0  # the cat
    assert found["subject_similarity"][0] > found["subject_similarity"][1] + 0.1


def test_the_ceiling_is_the_mean_over_pairs_of_photos(folder, encoder, dino):
    ceilings = SubjectSimilarity(folder, encoder, dino=dino).describe().ceilings
    assert set(ceilings) == {"subject_similarity", DINO}
    for name, rows in (("subject_similarity", by_clip(CATS[:3])), (DINO, by_dino(dino, CATS[:3]))):
        pairs = [rows[i] @ rows[j] for i, j in ((0, 1), (0, 2), (1, 2))]
        assert ceilings[name].mean == pytest.approx(np.mean(pairs), abs=1e-5)
        assert ceilings[name].low < ceilings[name].mean < ceilings[name].high <= 1
        assert (ceilings[name].n, ceilings[name].missing) == (3, 0)
    assert np.isnan(SubjectSimilarity(CATS[:1], encoder).describe().ceilings["subject_similarity"].mean)


def test_held_out_photos_have_a_column_and_a_ceiling_of_their_own(encoder):
    metric = SubjectSimilarity(CATS[:2], encoder, held_out=CATS[2:])
    found = metric.score(IMAGES, CELLS[:3])
    for name, photos in (("subject_similarity", CATS[:2]), (HELD_OUT, CATS[2:])):
        alone = SubjectSimilarity(photos, encoder)
        assert np.allclose(found[name], alone.score(IMAGES, CELLS[:3])["subject_similarity"])
        ceiling, expected = metric.describe().ceilings[name], alone.describe().ceilings["subject_similarity"]
        assert ceiling.mean == pytest.approx(expected.mean, abs=1e-6)  # rounding depends on the batch
        assert (ceiling.n, ceiling.missing) == (expected.n, expected.missing)
    assert not np.allclose(found["subject_similarity"], found[HELD_OUT], atol=1e-3)
    assert len(metric.describe().weights["held_out"]) == 2


def test_no_image_at_all(encoder, dino):
    metric = SubjectSimilarity(CATS, encoder, dino=dino, held_out=CATS[:1])
    assert [len(values) for values in metric.score([], ()).values()] == [0, 0, 0]


def test_it_says_what_it_measures_with(folder, encoder, dino):
    metric = SubjectSimilarity(folder, encoder, dino=dino)
    said = describe(metric)
    assert said.weights == {
        "clip": {"id": CLIP, "sha256": encoder.sha256},
        "dino": {"id": dino, "sha256": sha256(Path(dino) / "model.safetensors")},
        "references": [{"file": str(path), "sha256": sha256(path)} for path in sorted(folder.iterdir())],
    }
    assert set(said.thumbnails) == {photo["sha256"] for photo in said.weights["references"]}
    known = {name: set(said.weights) - set(column.ignores) for name, column in said.columns.items()}
    assert known == {"subject_similarity": {"clip", "references"}, DINO: {"dino", "references"}}
    assert isinstance(metric, Metric)
    assert isinstance(metric, Described)


def test_an_image_is_encoded_once_for_both_columns_of_clip(encoder, monkeypatch):
    metric = SubjectSimilarity(CATS[:2], encoder, held_out=CATS[2:])
    sizes: list[int] = []
    encode = ClipEncoder.encode
    monkeypatch.setattr(ClipEncoder, "encode", lambda self, batch: sizes.append(len(batch)) or encode(self, batch))
    metric.score([image.copy() for image in IMAGES], CELLS[:3])
    assert sizes == [3]


def test_everything_that_is_missing_is_named_at_once_also_without_photos(tmp_path):
    options = SubjectSimilarity.Options(str(tmp_path / "no-clip"), PRETRAINED, str(tmp_path / "no-dino"))
    for photos in (None, []):
        with pytest.raises(UserError, match=r"subject_similarity: (?s:.*)no-clip(?s:.*)no-dino: no such folder"):
            SubjectSimilarity.for_run(options, RunContext(photos, [], "cpu"))
    with pytest.raises(UserError, match="empty list, expected at least one photo of the subject"):
        SubjectSimilarity([], CLIP)


def test_a_run_gives_photos_held_out_ones_and_the_shared_encoder(folder):
    paths = sorted(folder.iterdir())
    run = RunContext(paths[:2], paths[2:], "cpu", ["a photo of sks cat"])
    metric = SubjectSimilarity.for_run(SubjectSimilarity.Options(CLIP, None), run)
    assert list(metric.describe().columns) == ["subject_similarity", HELD_OUT]
    assert [kind for kind, _ in run.shared] == ["clip", "references"]
    assert SubjectSimilarity.for_run(SubjectSimilarity.Options(CLIP, None), RunContext(None, [], "cpu")) is None
