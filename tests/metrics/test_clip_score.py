"""The CLIP score is 100 times the cosine of image and prompt; the margin tells whether the own prompt fits best."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, chelsea

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Described, Metric, RunContext, describe
from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.clip_score import MARGIN, WORST, ClipScore
from finetune_monitor.metrics.thresholds import weights_of
from finetune_monitor.models.clip import ClipEncoder
from finetune_monitor.record.evaluation import Evaluation, ScoredImage
from finetune_monitor.record.grid import Cell, PromptGrid
from support.heads import write_clip
from support.places import DEMO

CLIP = str(DEMO / "clip")
PROMPTS = ("a photo of sks person", "a black and white photo of sks person", "a blurry photo of sks person")
COLOR = Image.fromarray(astronaut()).crop((100, 0, 350, 250))
GRAY = COLOR.convert("L").convert("RGB")
CAT = Image.fromarray(chelsea())


def cells(*prompts: str) -> list[Cell]:
    return [Cell(index, f"c{index}", prompt, "", index) for index, prompt in enumerate(prompts)]


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder(CLIP)


@torch.no_grad()
def by_hand(images: list[Image.Image], prompts: tuple[str, ...]) -> np.ndarray:
    """Cosines of images and prompts, by open_clip's documented use."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    tokens = open_clip.get_tokenizer(f"local-dir:{CLIP}")(list(prompts))
    pixels = torch.stack([preprocess(image) for image in images])
    features, texts = model.eval().encode_image(pixels), model.encode_text(tokens)
    return (features @ texts.T / (features.norm(dim=1)[:, None] * texts.norm(dim=1))).numpy()


def test_scores_follow_from_the_documented_use_of_open_clip(encoder):
    images = [COLOR, GRAY, CAT, COLOR, GRAY]
    own = [0, 1, 2, 1, 0]
    expected = by_hand(images, PROMPTS)
    found = ClipScore(encoder, prompts=PROMPTS).score(images, cells(*(PROMPTS[place] for place in own)))
    assert list(found) == ["clip_score", MARGIN]
    to_own = expected[range(5), own]
    assert np.allclose(found["clip_score"], 100 * np.maximum(to_own, 0), atol=1e-3)
    assert (to_own < 0).any()  # something to be cut off
    assert (to_own > 0).any()
    others = [np.delete(row, place).mean() for row, place in zip(expected, own, strict=True)]
    assert np.allclose(found[MARGIN], to_own - others, atol=1e-5)


def test_the_margin_turns_where_images_are_swapped_between_prompts(encoder):
    metric = ClipScore(encoder, prompts=PROMPTS[:2])
    right = metric.score([COLOR, GRAY], cells(*PROMPTS[:2]))[MARGIN]
    swapped = metric.score([GRAY, COLOR], cells(*PROMPTS[:2]))[MARGIN]
    assert right.mean() > 0.05
    assert swapped.mean() < -0.05
    assert swapped == pytest.approx(-right[::-1], abs=1e-6)


def test_where_images_do_not_depend_on_the_prompt_the_margin_is_zero_over_the_grid(encoder):
    found = ClipScore(encoder, prompts=PROMPTS).score([COLOR] * 3, cells(*PROMPTS))[MARGIN]
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert np.abs(found).max() > 0.05


def test_a_prompt_beside_the_grid_is_compared_with_all_of_it(encoder):
    beside = "a photo of a person"
    expected = by_hand([COLOR], (*PROMPTS[:2], beside))[0]
    found = ClipScore(encoder, prompts=PROMPTS[:2]).score([COLOR], cells(beside))
    assert found[MARGIN][0] == pytest.approx(expected[2] - expected[:2].mean(), abs=1e-5)
    assert found["clip_score"][0] == pytest.approx(100 * max(expected[2], 0), abs=1e-3)


@pytest.mark.parametrize("prompts", [(), PROMPTS[:1], PROMPTS[:1] * 2])
def test_without_a_second_prompt_there_is_no_margin(encoder, prompts):
    metric = ClipScore(encoder, prompts=prompts)
    assert list(metric.score([COLOR], cells(PROMPTS[0]))) == list(describe(metric).columns) == ["clip_score"]
    assert set(metric.describe().weights) == {"clip"}


def test_an_image_is_scored_alike_alone_in_any_share_of_the_grid(encoder):
    grid = PromptGrid(PROMPTS, images_per_prompt=2)
    images = [COLOR, GRAY, CAT, COLOR, GRAY, CAT]
    whole, share = ClipScore(encoder, prompts=PROMPTS), ClipScore(ClipEncoder(CLIP), prompts=PROMPTS)
    together = whole.score(images, grid.cells)
    for start in range(2):
        mine = share.score(images[start::2], grid.cells[start::2])
        for name, values in mine.items():
            assert np.allclose(values, together[name][start::2], atol=1e-4)
    assert all(len(values) == 0 for values in whole.score([], ()).values())


def test_it_says_what_it_measures_with(encoder):
    metric = ClipScore(encoder, prompts=PROMPTS)
    said = describe(metric)
    assert said.weights["clip"] == {"id": CLIP, "sha256": encoder.sha256}
    assert said.weights["prompts"]["id"] == "3 prompts"
    assert said.columns["clip_score"].ignores == ("prompts",)  # comparable between grids, the margin is not
    assert not said.columns[MARGIN].ignores
    assert (said.columns["clip_score"].bounds, said.columns[MARGIN].bounds) == ((0, 100), (-2, 2))
    other = ClipScore(encoder, prompts=PROMPTS[:2]).describe().weights
    assert other["prompts"] != said.weights["prompts"]
    assert ClipScore(encoder, prompts=PROMPTS[::-1]).describe().weights == said.weights
    assert weights_of(other) == weights_of(said.weights)  # stars of clip_score may be taken to another grid
    assert isinstance(metric, Metric)
    assert isinstance(metric, Described)


def test_metrics_of_a_run_share_one_encoder_and_each_image_is_encoded_once(monkeypatch):
    loaded: list[str] = []
    monkeypatch.setattr(ClipEncoder, "__init__", counted(ClipEncoder.__init__, loaded))
    run = RunContext(None, [], "cpu", PROMPTS[:2])
    options = {"clip": CLIP, "pretrained": None}
    head = str(DEMO / "aesthetic_head.safetensors")
    metrics = [
        Aesthetic.for_run(Aesthetic.Options(**options, head=head), run),
        ClipScore.for_run(ClipScore.Options(**options), run),
    ]
    sizes: list[int] = []
    encode = ClipEncoder.encode
    monkeypatch.setattr(ClipEncoder, "encode", lambda self, batch: sizes.append(len(batch)) or encode(self, batch))
    images = [COLOR, GRAY, CAT]
    scores = [metric.score(images, cells(*PROMPTS[:2], PROMPTS[0])) for metric in metrics]
    assert sizes == [3]
    assert loaded == ["once"]
    assert MARGIN in scores[1]
    alone = Aesthetic(CLIP, None, head).score(images, cells(*PROMPTS))
    assert np.array_equal(alone["aesthetic"], scores[0]["aesthetic"])


def counted(init, loaded: list[str]):
    return lambda self, *args, **named: (loaded.append("once"), init(self, *args, **named))[1]


def test_another_clip_is_an_encoder_of_its_own(tmp_path):
    run = RunContext(None, [], "cpu")
    own = write_clip(tmp_path)
    assert run.clip(CLIP, None) is run.clip(CLIP, None)
    assert run.clip(str(own), None) is not run.clip(CLIP, None)
    with pytest.raises(UserError, match="expected a model name of open_clip or a folder"):
        run.clip("ViT-Q", None)


def images_around(grid: PromptGrid, means: dict[str, float], rng: np.random.Generator) -> tuple[ScoredImage, ...]:
    """Margins of each prompt's images; probes have none."""
    return tuple(
        ScoredImage(cell, None, {} if cell.is_probe else {MARGIN: means[cell.prompt] + 0.01 * rng.normal()})
        for cell in grid.cells
    )


def test_a_prompt_that_the_base_model_does_not_follow_is_no_prompt_that_training_lost():
    grid, rng = PromptGrid(["a", "b", "c"], images_per_prompt=4), np.random.default_rng(1)
    before = Evaluation(0, None, 0.0, {}, images_around(grid, {"a": 0.2, "b": -0.2, "c": 0.0}, rng))
    after = Evaluation(100, None, 0.0, {}, images_around(grid, {"a": 0.2, "b": -0.3, "c": -0.1}, rng))
    found = ClipScore(CLIP, prompts=grid.prompts).derive([before, after])[WORST]
    assert found.mean == pytest.approx(-0.1, abs=0.02)


def test_a_prompt_that_the_base_model_hardly_misses_is_not_lost_by_training_that_changes_nothing():
    grid = PromptGrid(["a", "b"], images_per_prompt=4)
    margins = {"a": (0.2, 0.2, 0.2, 0.2), "b": (0.05, -0.04, -0.06, 0.01)}  # b: below 0, but its interval is not
    images = tuple(ScoredImage(cell, None, {MARGIN: margins[cell.prompt][cell.seed % 1000]}) for cell in grid.cells)
    start, same = (Evaluation(step, None, 0.0, {}, images) for step in (0, 100))
    metric = ClipScore(CLIP, prompts=grid.prompts)
    assert metric.derive([start, same])[WORST].mean == pytest.approx(0.2)
    fallen = tuple(
        replace(each, scores={MARGIN: each.scores[MARGIN] - 0.1 - each.cell.seed % 7 / 99}) for each in images
    )
    assert metric.derive([start, replace(same, images=fallen)])[WORST].mean < -0.1, "it may have been followed before"


def test_the_prompt_that_fits_worst_is_found_and_probes_are_in_no_margin():
    grid = PromptGrid(["a", "b"], images_per_prompt=4, probe_prompts=["c"])
    rng = np.random.default_rng(0)
    means = {"a": 0.2, "b": -0.1, "c": -0.9}
    images = images_around(grid, means, rng)
    metric = ClipScore(CLIP, prompts=grid.prompts)
    found = metric.derive([Evaluation(100, None, 0.0, {}, images)])[WORST]
    assert found.low < -0.1 < found.high < 0
    assert found.n == 4
    scores = metric.score([Image.new("RGB", (64, 64))] * 2, (grid.cells[0], grid.cells[-1]))
    assert [np.isnan(values).tolist() for values in scores.values()] == [[False, True], [False, True]]
